#!/usr/bin/env python3
"""Compares a push from a host over SSH and a pull to it with `ssh HOST cat` of the same bytes, and a pull to three hosts
with a pull to one.

Runs in the lab (`make bench-remote`). BENCH_MIB sets the size of the image (2048). The store discards what it receives and
sends from memory: on a small machine a real store would be the bottleneck. Prints a line for each figure with its limit;
exit code 1 if one is exceeded.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

LAB = os.environ["SNAPDECK_LAB"]
HERE = os.path.dirname(os.path.abspath(__file__))
SNAPDECK = os.path.abspath("target/release/snapdeck")
MIB = 1 << 20
SIZE_MIB = int(os.environ.get("BENCH_MIB", "2048"))
RUNS = 3
ROOT = os.path.join(LAB, "bench")
HOSTS = {"alpha": ("alpha", 2), "beta": ("beta", 3), "gamma": ("alpha", 4)}
ENV = {"PATH": os.environ["PATH"], "HOME": ROOT, "SNAPDECK_CONFIG": f"{ROOT}/config.toml"}
started = []


def run(*argv, **more):
    result = subprocess.run(argv, env=ENV, stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if result.returncode:
        sys.exit(f"{argv} failed: {result.stderr}")
    return result.stdout


def seconds(*argv, stdin=subprocess.DEVNULL):
    start = time.monotonic()
    subprocess.run(argv, env=ENV, check=True, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.monotonic() - start


def snapdeck(*args):
    start = time.monotonic()
    result = json.loads(run(SNAPDECK, *args, "--json"))
    return result, time.monotonic() - start


def start(*argv):
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    started.append(child)
    return child


def open_store(*options):
    directory = f"{ROOT}/store-{len(started)}"
    os.makedirs(directory)
    store = start(sys.executable, f"{HERE}/range-store.py", directory, *options)
    return f"http://127.0.0.1:{store.stdout.readline().strip()}"


def open_hosts():
    """Starts an sshd for each host, in its mount namespace."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{ROOT}/key")
    shutil.copy(f"{ROOT}/key.pub", f"{ROOT}/authorized")
    known_hosts = open(f"{ROOT}/known", "w")
    key = open(f"{ROOT}/key.pub").read().split()
    for name, (lab_host, last) in HOSTS.items():
        address = f"127.0.0.{last}"
        for part in ("snapshots", "sandboxes"):
            os.makedirs(f"{ROOT}/{name}/{part}")
        with open(f"{ROOT}/{name}/sshd", "w") as config:
            config.write(
                f"ListenAddress {address}:2022\nHostKey {ROOT}/key\nAuthorizedKeysFile {ROOT}/authorized\n"
                f"StrictModes no\nUsePAM no\nSetEnv HOME={ROOT}/{name}\nPermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\n"
            )
        holder = open(f"{LAB}/{lab_host}/holder.pid").read().strip()
        start(
            *("nsenter", f"--mount=/proc/{holder}/ns/mnt", "--", "setpriv", "--pdeathsig=KILL"),
            *("/usr/sbin/sshd", "-D", "-f", f"{ROOT}/{name}/sshd"),
        )
        known_hosts.write(f"[{address}]:2022 {key[0]} {key[1]}\n")
    known_hosts.close()
    for name in HOSTS:
        end = time.monotonic() + 20
        while subprocess.run(ssh(name, "true"), env=ENV, capture_output=True).returncode:
            if time.monotonic() > end:
                sys.exit(f"the sshd of {name} does not start")
            time.sleep(0.1)


def ssh(name, *command):
    options = (f"UserKnownHostsFile={ROOT}/known", "BatchMode=yes", "Port=2022")
    words = [word for option in options for word in ("-o", option)]
    return ["ssh", "-i", f"{ROOT}/key", *words, f"root@127.0.0.{HOSTS[name][1]}", *command]


def configure(store):
    """Sets the store for snapdeck."""
    text = (
        f'[bucket]\nname = "bench"\nprefix = "bench/"\nendpoint = "{store}"\nregion = "us-east-1"\n'
        'access_key_id = "any"\nsecret_access_key = "any"\n'
    )
    for name, (_, last) in HOSTS.items():
        text += (
            f'[[hosts]]\nname = "{name}"\nsnapshots_dir = "{ROOT}/{name}/snapshots"\n'
            f'sandboxes_dir = "{ROOT}/{name}/sandboxes"\ntemp_dir = "{ROOT}/{name}"\nowner = "0:0"\n'
            f'uri = "qemu+ssh://root@127.0.0.{last}:2022/system?keyfile={ROOT}/key&known_hosts={ROOT}/known"\n'
        )
    with open(f"{ROOT}/config.toml", "w") as config:
        config.write(text)


def create_image():
    """Creates a sandbox whose base is not in the bucket, so that a push uploads all of it."""
    raw, base, disk = f"{ROOT}/raw", f"{ROOT}/alpha/snapshots/base.qcow2", f"{ROOT}/alpha/sandboxes/vm.qcow2"
    with open("/dev/urandom", "rb") as noise, open(raw, "wb") as file:
        for _ in range(SIZE_MIB):
            file.write(noise.read(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base)
    os.remove(raw)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, disk)
    with open(f"{ROOT}/vm.xml", "w") as xml:
        xml.write(
            "<domain type='qemu'><name>bench-vm</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os>"
            "<type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"
            "</devices></domain>"
        )
    run("virsh", "-q", "-c", f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock", "define", f"{ROOT}/vm.xml")
    return base


def median(measure):
    return statistics.median(measure() for _ in range(RUNS))


def sent_bytes(store):
    return int(urllib.request.urlopen(f"{store}/sent").read())


def main():
    open_hosts()
    base = create_image()
    image = f"{ROOT}/image"
    shutil.copy(base, image)

    configure(open_store("discard"))

    def push_all():
        elapsed = snapdeck("push", "bench-vm", "pushed", "--host", "alpha")[1]
        # Else the next push has the store copy it.
        run(SNAPDECK, "remove", "pushed", "--bucket", "--host", "alpha")
        return elapsed

    push = median(push_all)
    read = median(lambda: seconds(*ssh("alpha", "cat", base)))

    store = open_store()
    configure(store)
    request = urllib.request.Request(f"{store}/bench/bench/app.qcow2", open(image, "rb").read(), method="PUT")
    urllib.request.urlopen(request)
    pulls = []
    for _ in range(RUNS):
        pulls.append(snapdeck("pull", "app", "--host", "beta")[1])
        run(SNAPDECK, "remove", "app", "--local", "--host", "beta")
    pull = statistics.median(pulls)
    copy = f"{ROOT}/beta/copy"

    def write():
        with open(image, "rb") as bytes_:
            elapsed = seconds(*ssh("beta", f"cat >{copy} && sync {copy}"), stdin=bytes_)
        os.remove(copy)
        return elapsed

    written = median(write)
    before = sent_bytes(store)
    result, fan_out = snapdeck("pull", "app", "--all-hosts")
    assert len(result["results"]) == 3, result
    fetched = (sent_bytes(store) - before) / os.path.getsize(image)

    print(f"an image of {SIZE_MIB} MiB; medians of {RUNS}")
    for name, elapsed in (
        ("push", push),
        ("ssh HOST cat", read),
        ("pull", pull),
        ("ssh HOST 'cat > FILE && sync'", written),
        ("pull to three", fan_out),
    ):
        print(f"  {name:<32} {elapsed:7.2f} s  {SIZE_MIB / elapsed:7.0f} MiB/s")
    exceeded = 0
    for name, value, limit in (
        ("push, to ssh cat", push / read, 1.15),
        ("pull, to ssh cat", pull / written, 1.15),
        ("bytes fetched for three, to one", fetched, 1.01),
    ):
        exceeded += value > limit
        print(f"  {name:<32} {value:7.3f} of {limit:5.2f}  {'ok' if value <= limit else 'EXCEEDED'}")
    run("virsh", "-q", "-c", f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock", "undefine", "bench-vm")
    return 1 if exceeded else 0


os.makedirs(ROOT)
try:
    code = main()
finally:
    for child in started:
        child.kill()
    shutil.rmtree(ROOT, ignore_errors=True)
sys.exit(code)
