# make demo    install what is missing, build, open the console on an embedded world
# make test    install what the tests need, start the lab, run everything, stop the lab
# make lint    formatting and clippy
# make lab     a shell in the lab: two hosts and a bucket (tests/lab/run.sh says where)
# make bench-push   what a push costs beside qemu-img convert with s5cmd or rclone (BENCH_BASE_MIB=512 for less)
# make bench-remote what a host over SSH costs beside ssh HOST cat (BENCH_MIB=256 for less)
# make bench-pull   what a pull costs beside s5cmd, rclone and cp (BENCH_BASE_MIB=512 for less)
# make bench-pause  how long a guest stands still for a snapshot (BENCH_OVERLAY_MIB=512 BENCH_RUNS=5 for less)
# make bench-console what the console costs, in a real terminal (BENCH_IDLE=10 for less); bottom, yazi and television
#                    stand beside it where .lab/peers/bin has them: cargo install --locked --root .lab/peers bottom
# make pictures     the console's pictures and its recording in assets/, from the running demo (needs tmux)
# make written      keys, man page and completions anew, from the code
.PHONY: demo test lint lab bench-push bench-pull bench-remote bench-pause bench-console pictures written

demo:
	@tests/lab/packages.sh demo
	cargo build --release --locked
	@target/release/snapdeck demo

test:
	@tests/lab/packages.sh test
	cargo test --locked --workspace --no-run
	@tests/lab/run.sh tests/lab/suite.sh

lint:
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

lab:
	@tests/lab/packages.sh test
	@tests/lab/run.sh $${SHELL:-bash}

bench-push:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@.lab/venv/bin/python3 -m pip install -q --disable-pip-version-check -r tests/lab/bench-requirements.txt
	@tests/lab/run.sh tests/lab/bench-push.py

bench-remote:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-remote.py

bench-pull:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@.lab/venv/bin/python3 -m pip install -q --disable-pip-version-check -r tests/lab/bench-requirements.txt
	@tests/lab/run.sh tests/lab/bench-pull.py

bench-pause:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-pause.py

bench-console:
	@tests/lab/packages.sh test
	cargo build --release --locked
	@tests/lab/run.sh tests/lab/bench-console.py

pictures:
	@tests/lab/packages.sh demo
	cargo build --release --locked
	@tests/lab/pictures.py

written:
	SNAPDECK_WRITE=1 cargo test --locked --test unprivileged written
