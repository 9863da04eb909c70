#!/usr/bin/env python3
"""Compares a pull and a push of which the host moves the bytes itself with those through the machine of the operator, and the pull
with curl on the host.

Runs in the lab (`make bench-direct`), as root: operator, hosts and store have network namespaces of their own, behind a link of
20 Mbit/s (the operator) or 1 Gbit/s; for the pull to three hosts theirs have 100 Mbit/s, since one machine computes the digests of
all. BENCH_MIB sets the size of the image (1024; the relay takes 7 minutes for it, each way). Prints a line for each figure with its
limit; exit code 1 if one is exceeded.
"""

import json
import os
import shutil
import subprocess
import sys
import time

LAB = os.environ["SNAPDECK_LAB"]
HERE = os.path.dirname(os.path.abspath(__file__))
SNAPDECK = os.path.abspath(os.environ.get("SD", "target/release/snapdeck"))
MIB = 1 << 20
SIZE_MIB = int(os.environ.get("BENCH_MIB", "1024"))
ROOT = os.path.join(LAB, "bench")
HOSTS = {"alpha": "alpha", "beta": "beta", "gamma": "alpha"}
ADDRESSES = {"operator": "10.99.0.1", "store": "10.99.0.2", "alpha": "10.99.0.11", "beta": "10.99.0.12", "gamma": "10.99.0.13"}
OPERATOR_MBIT, SITE_MBIT, FAN_OUT_MBIT = 20, 1000, 100
ENV = {"PATH": os.environ["PATH"], "HOME": ROOT, "SNAPDECK_CONFIG": f"{ROOT}/config.toml"}
TAG = f"sd{os.getpid()}"
HUB = f"{TAG}-hub"
SOCKET = f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock"
started = []


def run(*argv):
    result = subprocess.run(argv, env=ENV, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{argv} failed: {result.stderr}")
    return result.stdout


def inside(party, *argv):
    return ("ip", "netns", "exec", f"{TAG}-{party}", *argv)


def start(*argv):
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    started.append(child)
    return child


def open_network():
    """Gives each party a namespace with a link to a bridge in another one."""
    run("ip", "netns", "add", HUB)
    run("ip", "-n", HUB, "link", "add", "hub", "type", "bridge")
    run("ip", "-n", HUB, "link", "set", "hub", "up")
    for party, address in ADDRESSES.items():
        name = f"{TAG}-{party}"
        run("ip", "netns", "add", name)
        run("ip", "-n", HUB, "link", "add", party, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "-n", HUB, "link", "set", party, "master", "hub", "up")
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")


def limit(party, mbit):
    """Limits both directions of a party's link; None: no limit."""
    for namespace, device in ((f"{TAG}-{party}", "eth0"), (HUB, party)):
        subprocess.run(["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"], capture_output=True)
        if mbit:
            burst = "64kb" if mbit < 100 else "1mb"
            run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{mbit}mbit", "burst", burst, "latency", "100ms")


def limit_all(operator, site):
    for party in ADDRESSES:
        limit(party, operator if party == "operator" else site)


def operator_bytes():
    links = json.loads(run("ip", "-n", f"{TAG}-operator", "-s", "-j", "link", "show", "dev", "eth0"))
    stats = links[0]["stats64"]
    return stats["rx"]["bytes"] + stats["tx"]["bytes"]


def open_hosts():
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{ROOT}/key")
    shutil.copy(f"{ROOT}/key.pub", f"{ROOT}/authorized")
    key = open(f"{ROOT}/key.pub").read().split()
    with open(f"{ROOT}/known", "w") as known_hosts:
        for name, lab_host in HOSTS.items():
            for part in ("snapshots", "sandboxes"):
                os.makedirs(f"{ROOT}/{name}/{part}")
            with open(f"{ROOT}/{name}/sshd", "w") as config:
                config.write(
                    f"ListenAddress {ADDRESSES[name]}:2022\nHostKey {ROOT}/key\nAuthorizedKeysFile {ROOT}/authorized\n"
                    f"StrictModes no\nUsePAM no\nSetEnv HOME={ROOT}/{name}\nPermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\n"
                )
            holder = open(f"{LAB}/{lab_host}/holder.pid").read().strip()
            start(
                *inside(name, "nsenter", f"--mount=/proc/{holder}/ns/mnt", "--", "setpriv", "--pdeathsig=KILL"),
                *("/usr/sbin/sshd", "-D", "-f", f"{ROOT}/{name}/sshd"),
            )
            known_hosts.write(f"[{ADDRESSES[name]}]:2022 {key[0]} {key[1]}\n")
    for name in HOSTS:
        end = time.monotonic() + 20
        while subprocess.run(ssh(name, "true"), env=ENV, capture_output=True).returncode:
            if time.monotonic() > end:
                sys.exit(f"the sshd of {name} does not start")
            time.sleep(0.1)


def ssh(name, *command):
    options = (f"UserKnownHostsFile={ROOT}/known", "BatchMode=yes", "Port=2022")
    words = [word for option in options for word in ("-o", option)]
    return inside("operator", "ssh", "-i", f"{ROOT}/key", *words, f"root@{ADDRESSES[name]}", *command)


def configure(store, route):
    text = (
        f'[bucket]\nname = "bench"\nprefix = "bench/"\nendpoint = "{store}"\nregion = "us-east-1"\n'
        'access_key_id = "any"\nsecret_access_key = "any"\n'
    )
    for name in HOSTS:
        text += (
            f'[[hosts]]\nname = "{name}"\nsnapshots_dir = "{ROOT}/{name}/snapshots"\ntransfer = "{route}"\n'
            f'sandboxes_dir = "{ROOT}/{name}/sandboxes"\ntemp_dir = "{ROOT}/{name}"\nowner = "0:0"\n'
            f'uri = "qemu+ssh://root@{ADDRESSES[name]}:2022/system?keyfile={ROOT}/key&known_hosts={ROOT}/known"\n'
        )
    with open(f"{ROOT}/config.toml", "w") as config:
        config.write(text)


def snapdeck(*args):
    """Returns the seconds, and the bytes on the operator's link."""
    before, begin = operator_bytes(), time.monotonic()
    run(*inside("operator", SNAPDECK, *args, "--json"))
    return time.monotonic() - begin, operator_bytes() - before


def create_sandbox(raw):
    """Creates one whose disk has all bytes of the image, on an empty base that the bucket does not have."""
    base, disk = f"{ROOT}/alpha/snapshots/base.qcow2", f"{ROOT}/alpha/sandboxes/vm.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", base, f"{SIZE_MIB}M")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)
    run("qemu-img", "rebase", "-q", "-u", "-F", "qcow2", "-b", base, disk)
    with open(f"{ROOT}/vm.xml", "w") as xml:
        xml.write(
            "<domain type='qemu'><name>bench-vm</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os>"
            "<type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"
            "</devices></domain>"
        )
    run("virsh", "-q", "-c", SOCKET, "define", f"{ROOT}/vm.xml")


def push(name):
    figures = snapdeck("push", "bench-vm", name, "--host", "alpha")
    # The next one would have the store copy it.
    run(*inside("operator", SNAPDECK, "remove", name, "--bucket", "--host", "alpha"))
    return figures


def pull(*hosts):
    flags = [word for host in hosts for word in ("--host", host)]
    figures = snapdeck("pull", "app", *flags)
    for host in hosts:
        run(*inside("operator", SNAPDECK, "remove", "app", "--local", "--host", host))
    return figures


def main():
    open_network()
    open_hosts()
    os.makedirs(f"{ROOT}/store")
    store = start(*inside("store", sys.executable, f"{HERE}/range-store.py", f"{ROOT}/store", "--address", ADDRESSES["store"]))
    url = f"http://{ADDRESSES['store']}:{store.stdout.readline().strip()}"
    raw, image = f"{ROOT}/raw", f"{ROOT}/alpha/snapshots/app.qcow2"
    with open("/dev/urandom", "rb") as noise, open(raw, "wb") as file:
        for _ in range(SIZE_MIB):
            file.write(noise.read(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    create_sandbox(raw)
    os.remove(raw)
    size = os.path.getsize(image)
    configure(url, "relay")
    snapdeck("upload", "app", "--host", "alpha")
    run(*inside("operator", SNAPDECK, "remove", "app", "--local", "--host", "alpha"))

    configure(url, "direct")
    file = f"{ROOT}/beta/copy"
    pulls, copies = [], []
    for _ in range(3):
        pulls.append(pull("beta")[0])
        begin = time.monotonic()
        run(*ssh("beta", f"curl -sSf -o {file} {url}/bench/bench/app.qcow2 && sha256sum {file} && sync {file}"))
        copies.append(time.monotonic() - begin)
        os.remove(file)
    free, copied = sorted(pulls)[1], sorted(copies)[1]

    limit_all(OPERATOR_MBIT, SITE_MBIT)
    one, one_bytes = pull("beta")
    configure(url, "relay")
    relayed, relayed_bytes = pull("beta")
    configure(url, "direct")
    for name in HOSTS:
        limit(name, FAN_OUT_MBIT)
    single = pull("beta")[0]
    three, three_bytes = pull("alpha", "beta", "gamma")
    limit_all(OPERATOR_MBIT, SITE_MBIT)
    pushed, pushed_bytes = push("direct")
    configure(url, "relay")
    push_relayed, push_relayed_bytes = push("relayed")

    print(f"an image of {SIZE_MIB} MiB; operator at {OPERATOR_MBIT} Mbit/s, hosts and store at {SITE_MBIT} Mbit/s")
    for name, elapsed, passed in (
        ("pull, direct", one, one_bytes),
        ("pull, relay", relayed, relayed_bytes),
        ("push, direct", pushed, pushed_bytes),
        ("push, relay", push_relayed, push_relayed_bytes),
        (f"pull, direct, three hosts at {FAN_OUT_MBIT} Mbit/s", three, three_bytes),
    ):
        print(f"  {name:<40} {elapsed:7.2f} s  {passed / MIB:8.2f} MiB on the operator's link")
    print(f"  {f'pull, direct, one host at {FAN_OUT_MBIT} Mbit/s':<40} {single:7.2f} s")
    print(f"  {'pull, direct, without limits':<40} {free:7.2f} s")
    print(f"  {'curl, sha256sum and sync there':<40} {copied:7.2f} s")
    exceeded = 0
    for name, value, bound in (
        ("pull, direct, to the relay", one / relayed, 0.1),
        ("push, direct, to the relay", pushed / push_relayed, 0.1),
        ("operator's bytes, push", pushed_bytes / size, 0.01),
        ("operator's bytes, one host", one_bytes / size, 0.01),
        ("operator's bytes, three hosts", three_bytes / size, 0.01),
        ("time for three hosts, to one", three / single, 1.2),
        ("pull, direct, without limits, to curl", free / copied, 1.15),
    ):
        exceeded += value > bound
        print(f"  {name:<40} {value:7.3f} of {bound:5.2f}  {'ok' if value <= bound else 'EXCEEDED'}")
    run("virsh", "-q", "-c", SOCKET, "undefine", "bench-vm")
    return 1 if exceeded else 0


os.makedirs(ROOT)
try:
    code = main()
finally:
    for child in started:
        child.kill()
    for party in (*ADDRESSES, "hub"):
        subprocess.run(["ip", "netns", "del", f"{TAG}-{party}"], capture_output=True)
    shutil.rmtree(ROOT, ignore_errors=True)
sys.exit(code)
