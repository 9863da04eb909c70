# make demo      install what is missing, build, open the console on a throwaway demo environment
# make test      install what the tests need, start the lab, run all tests, stop the lab
# make test-debian13 [FILTERS="operations:: sandboxes::"]
#                run system tests on hosts over SSH with the libvirt, QEMU and OpenSSH of Debian 13; needs root and a Debian mirror
# make lint      formatting, clippy, banned words; bans, licenses and sources of dependencies
# make install   install the program, man page, completions, systemd unit and sample settings (PREFIX, DESTDIR)
# make deb       build a Debian package in target/debian
# make try-deb   install that package in a fresh Debian 12 and 13 (chroots) and make a first push there by the README;
#                needs root and a Debian mirror
# make written   update the generated files: man page, completions, keymap, docs/cli.md, docs/keys.md, docs/config.md
# make audit     check dependencies for security advisories (downloads the advisory database)
# make lab       a shell in the lab: two hosts and a bucket (tests/lab/run.sh describes them)
# make bench-push    cost of a push, compared with qemu-img convert and s5cmd or rclone (BENCH_BASE_MIB=512 for less)
# make bench-remote  cost of a host over SSH, compared with ssh HOST cat (BENCH_MIB=256 for less)
# make bench-pull    cost of a pull, compared with s5cmd, rclone and cp (BENCH_BASE_MIB=512 for less)
# make bench-direct  cost of a pull and a push whose bytes the host moves itself, compared with the relay and with curl (BENCH_MIB=128 for less)
# make bench-large   bytes, requests and memory of all that moves an image of 120 GiB, mostly holes (BENCH_LARGE_GIB=16 for less)
# make bench-pause   how long a guest is paused for a snapshot (BENCH_OVERLAY_MIB=512 BENCH_RUNS=5 for less)
# make bench-console cost of the console in a pseudo terminal (BENCH_IDLE=10 for less), compared with bottom, yazi and
#                    television if they are in .lab/peers/bin: cargo install --locked --root .lab/peers bottom
# make faults    attack the program on real parts: kill it, break store, link, disk, clock, and run two operators at once;
#                prints a table, exit code 1 if a row is below 100 % (FAULTS_KILLS=40 FAULTS_TRIES=2 for less)
# make fuzz      fuzz each parser of outside bytes for five minutes; prints a table, exit code 1 if there is a finding
#                (FUZZ_SECONDS=20 FUZZ_TARGET=manifest for less)
# make pictures  create the pictures and the recording in assets/ from the running demo (needs tmux)
.PHONY: demo test test-debian13 lint build install deb try-deb written tools-deb tools-deny audit lab bench-push bench-pull \
  bench-remote bench-direct bench-large bench-pause bench-console faults fuzz pictures

target := $(or $(CARGO_TARGET_DIR),target)
tools := .lab/tools
PREFIX ?= /usr/local
DESTDIR ?=

demo:
	@tests/lab/packages.sh demo
	cargo build --release --locked
	@$(target)/release/snapdeck demo

test:
	@tests/lab/packages.sh test
	cargo test --locked --workspace --no-run
	@tests/lab/run.sh tests/lab/suite.sh

FILTERS ?= operations:: sandboxes:: doctor:: running::
test-debian13:
	@tests/lab/packages.sh test
	cargo test --locked --workspace --no-run
	@tests/lab/debian13.sh cargo test --locked --workspace --no-fail-fast --test system -- $(FILTERS)

lint: tools-deny
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	tests/lint/words.sh
	PATH="$(CURDIR)/$(tools)/bin:$$PATH" cargo deny --locked -L error check bans licenses sources

build:
	@tests/lab/packages.sh build
	cargo build --release --locked

# With sudo, cargo is often not in PATH: then the program must be built before.
install:
	@if command -v cargo >/dev/null; then cargo build --release --locked; \
	elif [ ! -x $(target)/release/snapdeck ]; then echo "run make build first" >&2; exit 1; fi
	install -D -m 755 $(target)/release/snapdeck $(DESTDIR)$(PREFIX)/bin/snapdeck
	install -D -m 644 assets/snapdeck.1 $(DESTDIR)$(PREFIX)/share/man/man1/snapdeck.1
	install -D -m 644 assets/completions/snapdeck.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/snapdeck
	install -D -m 644 assets/completions/_snapdeck $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_snapdeck
	install -D -m 644 assets/completions/snapdeck.fish \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/snapdeck.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/bin/snapdeck|$(PREFIX)/bin/snapdeck|' assets/snapdeck.service \
	  >$(DESTDIR)$(PREFIX)/lib/systemd/system/snapdeck.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/snapdeck.service
	install -d $(DESTDIR)$(PREFIX)/share/doc/snapdeck/docs
	install -m 644 README.md CHANGELOG.md LICENSE assets/config.toml assets/serve.env config/default.toml \
	  config/keymap.toml config/commands.toml config/sandbox.xml $(DESTDIR)$(PREFIX)/share/doc/snapdeck
	install -m 644 docs/*.md $(DESTDIR)$(PREFIX)/share/doc/snapdeck/docs

deb: build tools-deb
	PATH="$(CURDIR)/$(tools)/bin:$$PATH" cargo deb --locked

tools-deb:
	@PATH="$(CURDIR)/$(tools)/bin:$$PATH" command -v cargo-deb >/dev/null || \
	  cargo install --locked cargo-deb --root $(tools)

try-deb: deb
	@tests/lab/packages.sh test
	@tests/lab/run.sh tests/lab/try-deb.sh

# Without optimisation the tool builds in half the time: less than two minutes on two cores.
tools-deny:
	@PATH="$(CURDIR)/$(tools)/bin:$$PATH" command -v cargo-deny >/dev/null || \
	  CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	  cargo install --locked cargo-deny --root $(tools)

audit: tools-deny
	PATH="$(CURDIR)/$(tools)/bin:$$PATH" cargo deny --locked -L error check advisories

written:
	SNAPDECK_WRITE=1 cargo test --locked --test unprivileged written

lab:
	@tests/lab/packages.sh test
	@tests/lab/run.sh $${SHELL:-bash}

bench-push:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@.lab/venv/bin/python3 -m pip install -q --disable-pip-version-check -r tests/lab/bench-requirements.txt
	@tests/lab/run.sh tests/lab/bench-push.py
	@tests/lab/run.sh tests/lab/bench-changes.py

bench-remote:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-remote.py

bench-pull:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@.lab/venv/bin/python3 -m pip install -q --disable-pip-version-check -r tests/lab/bench-requirements.txt
	@tests/lab/run.sh tests/lab/bench-pull.py

bench-direct:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-direct.py

bench-large:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-large.py
	@SNAPDECK_TEST_HOST=remote tests/lab/run.sh tests/lab/bench-large.py

bench-pause:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-pause.py

bench-console:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-console.py

faults:
	@tests/lab/packages.sh test
	cargo build --locked
	@tests/lab/run.sh python3 tests/faults/faults.py

fuzz:
	@tests/lab/packages.sh build
	@tests/fuzz.py

pictures:
	@tests/lab/packages.sh demo
	cargo build --release --locked
	@tests/lab/pictures.py
