#!/usr/bin/env python3
"""Measures bytes, requests and memory of all that moves an image of 120 GiB, most of which are holes.

Runs in the lab (`make bench-large`). BENCH_LARGE_GIB sets the size of the image (120), SNAPDECK_TEST_HOST=remote uses hosts
over SSH, SD is another binary than the release build. The store copies parts at no cost; it takes 3 GiB of disk. Prints a row
for each command with its bounds; exit code 1 if one is exceeded.
"""

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request

LAB = os.environ["SNAPDECK_LAB"]
HERE = os.path.dirname(os.path.abspath(__file__))
SNAPDECK = os.path.abspath(os.environ.get("SD", "target/release/snapdeck"))
IS_REMOTE = os.environ.get("SNAPDECK_TEST_HOST") == "remote"
MIB, GIB = 1 << 20, 1 << 30
BLOCK = 8 * MIB
SIZE = int(os.environ.get("BENCH_LARGE_GIB", "120")) * GIB
# Data of the base: runs of 4 MiB, spread over the image.
DATA_RUNS, RUN_BYTES = 50, 4 * MIB
OVERLAY_MIB = 26
ROOT = os.path.join(LAB, "bench-large")
HOSTS = {"alpha": "127.0.0.2", "beta": "127.0.0.3"}
BASE = f"{ROOT}/alpha/snapshots/base.qcow2"
NOISE = f"{ROOT}/noise"
ENV = {"PATH": os.environ["PATH"], "HOME": ROOT, "SNAPDECK_CONFIG": f"{ROOT}/config.toml"}
# Requests beside those for the parts: lookups, listings, manifests.
FEW_REQUESTS = 48
started = []
exceeded = 0


def run(*argv, check=True):
    done = subprocess.run(argv, env=ENV, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"{argv} failed: {done.stderr}")
    return done.stdout


def start(*argv):
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    started.append(child)
    return child


class Store:
    """A range-store.py."""

    def __init__(self):
        os.makedirs(f"{ROOT}/store")
        child = start(sys.executable, f"{HERE}/range-store.py", f"{ROOT}/store")
        self.endpoint = f"http://127.0.0.1:{child.stdout.readline().strip()}"

    def request(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.endpoint}/{path}", body, headers, method=method)
        with urllib.request.urlopen(request) as response:
            return response.read().decode(), response.headers

    def counters(self):
        """Returns the bytes received and sent, and the requests."""
        return [int(self.request("GET", name)[0]) for name in ("received", "sent", "requests")]

    def assemble(self, key, parts):
        """Creates an object of parts: bytes, or (KEY, LENGTH) for a copy; returns its tag."""
        reply, _ = self.request("POST", f"{key}?uploads")
        upload = reply.split("<UploadId>")[1].split("<")[0]
        for number, part in enumerate(parts, 1):
            path = f"{key}?uploadId={upload}&partNumber={number}"
            if isinstance(part, bytes):
                self.request("PUT", path, part)
            else:
                source, length = part
                copied = {"x_amz_copy_source": source, "x_amz_copy_source_range": f"bytes=0-{length - 1}"}
                self.request("PUT", path, **copied)
        reply, _ = self.request("POST", f"{key}?uploadId={upload}", b"")
        return reply.split("<ETag>")[1].split("<")[0]


def row(what, up, down, requests, peak, seconds, bounds):
    """Prints a row; `bounds` are those of its columns."""
    global exceeded
    values = {"up": up / MIB, "down": down / MIB, "requests": requests, "peak": peak, "s": seconds}
    bounds = {"peak": 128, **bounds}
    over = [name for name, bound in bounds.items() if values[name] > bound]
    exceeded += len(over)
    text = ", ".join(f"{name} {bound:.0f}" for name, bound in bounds.items())
    verdict = f"EXCEEDED: {', '.join(over)}" if over else "ok"
    print(
        f"  {what:<38} {values['up']:8.1f} {values['down']:8.1f} {requests:8} {peak:6.0f} {seconds:6.1f}  {text:<50} {verdict}",
        flush=True,
    )


def measure(store, what, *args, **bounds):
    """Runs snapdeck, which must succeed, and prints its row; returns its result."""
    # Flush the data of the previous command.
    os.sync()
    before, begin = store.counters(), time.monotonic()
    with open(f"{ROOT}/stdout", "w+") as stdout, open(f"{ROOT}/stderr", "w+") as stderr:
        argv = [SNAPDECK, *args, "--json"]
        child = subprocess.Popen(argv, env=ENV, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begin
        stdout.seek(0)
        stderr.seek(0)
        log = stderr.read()
        if child.returncode:
            sys.exit(f"{argv} failed: {log}")
        result = json.loads(stdout.read())
    if os.environ.get("BENCH_VERBOSE"):
        print(log, result)
    up, down, requests = (now - then for now, then in zip(store.counters(), before))
    row(what, up, down, requests, usage.ru_maxrss / 1024, seconds, bounds)
    return result


def open_hosts():
    """Starts an sshd for each host, in its mount namespace."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{ROOT}/key")
    shutil.copy(f"{ROOT}/key.pub", f"{ROOT}/authorized")
    key = open(f"{ROOT}/key.pub").read().split()
    with open(f"{ROOT}/known", "w") as known:
        known.writelines(f"[{address}]:2022 {key[0]} {key[1]}\n" for address in HOSTS.values())
    for name, address in HOSTS.items():
        with open(f"{ROOT}/{name}/sshd", "w") as config:
            config.write(
                f"ListenAddress {address}:2022\nHostKey {ROOT}/key\nAuthorizedKeysFile {ROOT}/authorized\nStrictModes no\n"
                f"UsePAM no\nSetEnv HOME={ROOT}/{name}\nPermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\n"
            )
        holder = open(f"{LAB}/{name}/holder.pid").read().strip()
        start(
            *("nsenter", f"--mount=/proc/{holder}/ns/mnt", "--", "setpriv", "--pdeathsig=KILL"),
            *("/usr/sbin/sshd", "-D", "-f", f"{ROOT}/{name}/sshd"),
        )
        options = [word for option in ("BatchMode=yes", "Port=2022") for word in ("-o", option)]
        known = ("-o", f"UserKnownHostsFile={ROOT}/known")
        ssh = ["ssh", "-i", f"{ROOT}/key", *options, *known, f"root@{address}", "true"]
        end = time.monotonic() + 20
        while subprocess.run(ssh, env=ENV, capture_output=True).returncode:
            if time.monotonic() > end:
                sys.exit(f"the sshd of {name} does not start")
            time.sleep(0.1)


def local_uri(name):
    return f"qemu:///system?socket={LAB}/{name}/run/libvirt/libvirt-sock"


def configure(store):
    text = (
        f'[bucket]\nname = "bench"\nprefix = "large/"\nendpoint = "{store.endpoint}"\nregion = "us-east-1"\n'
        'access_key_id = "any"\nsecret_access_key = "any"\n'
    )
    for name, address in HOSTS.items():
        uri = local_uri(name)
        if IS_REMOTE:
            uri = f"qemu+ssh://root@{address}:2022/system?keyfile={ROOT}/key&known_hosts={ROOT}/known"
        # temp_dir does not exist: a push that needs it fails.
        text += (
            f'[[hosts]]\nname = "{name}"\nuri = "{uri}"\nsnapshots_dir = "{ROOT}/{name}/snapshots"\n'
            f'sandboxes_dir = "{ROOT}/{name}/sandboxes"\ntemp_dir = "{ROOT}/none"\nowner = "{os.getuid()}:{os.getgid()}"\n'
        )
    with open(ENV["SNAPDECK_CONFIG"], "w") as config:
        config.write(text)


def write(disk, offset, length):
    """Writes random data."""
    with open(NOISE, "wb") as noise:
        noise.write(os.urandom(length))
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {NOISE} {offset} {length}", disk)


def create_base():
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", BASE, str(SIZE))
    for place in range(DATA_RUNS):
        write(BASE, place * (SIZE // DATA_RUNS) // MIB * MIB, RUN_BYTES)


def define(name):
    """Defines a sandbox on the base, with data in its overlay; returns its disk."""
    disk = f"{ROOT}/alpha/sandboxes/{name}.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", BASE, disk)
    chance = random.Random(name)
    for _ in range(OVERLAY_MIB):
        write(disk, chance.randrange(SIZE // MIB) * MIB, MIB)
    with open(f"{ROOT}/vm.xml", "w") as xml:
        xml.write(
            f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os>"
            "<type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"
            "</devices></domain>"
        )
    run("virsh", "-q", "-c", local_uri("alpha"), "define", f"{ROOT}/vm.xml")
    return disk


def extents(path):
    """Yields (offset, length, has data) of a file."""
    with open(path, "rb") as file:
        offset, size = 0, os.path.getsize(path)
        while offset < size:
            try:
                data = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:
                data = size
            if data > offset:
                yield offset, data - offset, False
            offset = data
            if offset < size:
                offset = os.lseek(file.fileno(), data, os.SEEK_HOLE)
                yield data, offset - data, True


def upload_base(store):
    """Creates the base's object, as another program would have uploaded it, with its manifest."""
    store.request("PUT", "bench/zeros", bytes(16 * MIB))
    store.assemble("bench/zeros", [("bench/zeros", 16 * MIB)] * 64)

    def parts():
        with open(BASE, "rb") as file:
            for offset, length, has_data in extents(BASE):
                while length > 0:
                    count = min(length, 64 * MIB if has_data else GIB)
                    yield os.pread(file.fileno(), count, offset) if has_data else ("bench/zeros", count)
                    offset, length = offset + count, length - count

    tag = store.assemble("bench/large/base.qcow2", parts())
    with open(f"{ROOT}/alpha/snapshots/base.json") as file:
        manifest = json.load(file)
    del manifest["file"]
    store.request("PUT", "bench/large/base.json", json.dumps({**manifest, "etag": tag}).encode())


def block_bytes():
    """Returns the MiB of the blocks of the base that have data."""
    blocks = set()
    for offset, length, has_data in extents(BASE):
        if has_data:
            blocks.update(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1))
    return len(blocks) * BLOCK / MIB


def table_mib():
    """Returns the MiB of the tables of an image."""
    return SIZE / 65536 * (8 + 2) / MIB


def compare(one, other):
    """Fails unless the files have the same bytes; does not read what is a hole in both."""
    assert os.path.getsize(one) == os.path.getsize(other), one
    with open(one, "rb") as first, open(other, "rb") as second:
        for path in (one, other):
            for offset, length, has_data in extents(path):
                for start in range(offset, offset + length if has_data else offset, BLOCK):
                    count = min(BLOCK, offset + length - start)
                    same = os.pread(first.fileno(), count, start) == os.pread(second.fileno(), count, start)
                    assert same, f"{one} differs from {other} at {start}"


def part_count():
    part = -(-SIZE // 10_000 // BLOCK) * BLOCK
    return SIZE // part


def remove_pulled(name="base"):
    for host in HOSTS:
        for path in (f"{ROOT}/{host}/snapshots/{name}.qcow2", f"{ROOT}/{host}/snapshots/{name}.json"):
            if os.path.exists(path) and path != BASE and (host, name) != ("alpha", "base"):
                os.remove(path)


def kill_pull(store, until_mib):
    """Starts a pull and kills it when the store has sent so much; returns the MiB that it has sent."""
    before = store.counters()[1]
    argv = [SNAPDECK, "pull", "base", "--host", "beta"]
    child = subprocess.Popen(argv, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while (store.counters()[1] - before) / MIB < until_mib:
        if child.poll() is not None:
            sys.exit("the pull ended before it was killed")
        time.sleep(0.02)
    child.kill()
    child.wait()
    # Over SSH, the process that has it locked ends later.
    with open(f"{ROOT}/beta/snapshots/.base.qcow2.pull/partial", "rb") as partial:
        fcntl.flock(partial, fcntl.LOCK_EX)
    return (store.counters()[1] - before) / MIB


def main():
    if IS_REMOTE:
        open_hosts()
    store = Store()
    configure(store)
    create_base()
    data_mib = DATA_RUNS * RUN_BYTES / MIB
    print(f"an image of {SIZE // GIB} GiB with {data_mib:.0f} MiB of data, {'hosts over SSH' if IS_REMOTE else 'local hosts'}")
    print(f"  {'':<38} {'up':>8} {'down':>8} {'requests':>8} {'peak':>6} {'s':>6}  bounds (MiB, MiB, requests, MiB, s)", flush=True)

    measure(store, "adopt", "adopt", "base", "--host", "alpha", up=0, down=0, requests=0, s=60)
    host = ("--host", "alpha")
    disk = define("bench-first")
    up = 1.05 * (data_mib + OVERLAY_MIB) + table_mib() + 8
    few = FEW_REQUESTS + up // 8
    measure(store, "push, base not in the bucket", "push", "bench-first", "first-1", *host, up=up, down=1, requests=few)
    write(disk, SIZE // 2, MIB)
    up = table_mib() + 24
    measure(store, "push of 1 MiB, on the last push", "push", "bench-first", "first-2", *host, up=up, down=32, requests=few + up // 8)

    upload_base(store)
    disk = define("bench-second")
    # Copied parts, and the parts in which the tail begins and ends.
    copies = part_count() + FEW_REQUESTS
    up = 1.05 * OVERLAY_MIB + table_mib() + 32
    measure(store, "push, base in the bucket", "push", "bench-second", "second-1", *host, up=up, down=2, requests=copies + up // 8)
    write(disk, SIZE // 2, MIB)
    up = table_mib() + 48
    measure(store, "push of 1 MiB, on the last push", "push", "bench-second", "second-2", *host, up=up, down=48, requests=copies + up // 8)

    down = block_bytes()
    pull = ("pull", "base", "--host", "beta")
    measure(store, "pull", *pull, up=0, down=down + 2, requests=down / 8 + FEW_REQUESTS, s=120)
    compare(f"{ROOT}/beta/snapshots/base.qcow2", BASE)
    measure(store, "verify", "verify", "base", "--host", "beta", up=0, down=0, requests=0, s=60)
    remove_pulled()
    sent = kill_pull(store, down / 2)
    # Blocks that were sent and not recorded are sent again.
    rest = down - sent + 16 * 8 + 2
    measure(store, "resume of a pull killed half-way", *pull, up=0, down=rest, requests=rest / 8 + FEW_REQUESTS, s=120)
    remove_pulled()
    changed = OVERLAY_MIB * 8 + table_mib() + 64
    measure(store, "pull on a host that has the base", "pull", "second-1", *host, up=0, down=changed, requests=changed / 8 + FEW_REQUESTS, s=120)
    remove_pulled("second-1")
    copy = ("copy", "base", "--from", "alpha", "--to", "beta")
    measure(store, "copy to another host", *copy, up=0, down=0, requests=0, s=120)
    compare(f"{ROOT}/beta/snapshots/base.qcow2", BASE)
    return 1 if exceeded else 0


for host in HOSTS:
    for part in ("snapshots", "sandboxes"):
        os.makedirs(f"{ROOT}/{host}/{part}")
try:
    code = main()
finally:
    for name in ("bench-first", "bench-second"):
        run("virsh", "-q", "-c", local_uri("alpha"), "undefine", name, check=False)
    for child in started:
        child.kill()
    shutil.rmtree(ROOT, ignore_errors=True)
sys.exit(code)
