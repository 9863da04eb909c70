#!/usr/bin/env python3
"""Measures the bytes that repeated pushes and pulls of one sandbox move, against what changed.

Runs in the lab (`make bench-push`). BENCH_CHANGES_MIB sets the size of the base (768), BENCH_ROUNDS the number of random
changes of the last part (50), BENCH_SEED repeats them, SD is another binary than the release build. Each pushed object
is compared with the disk. Prints a line for each figure with its limit; exit code 1 if one is exceeded.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time

LAB = os.environ["SNAPDECK_LAB"]
KEY, SECRET = os.environ["SNAPDECK_LAB_S3_KEY"], os.environ["SNAPDECK_LAB_S3_SECRET"]
BUCKET, S5CMD, STORE = os.environ["SNAPDECK_LAB_BUCKET"], os.environ["SNAPDECK_LAB_S5CMD"], os.environ["SNAPDECK_LAB_S3"]
SNAPDECK = os.path.abspath(os.environ.get("SD", "target/release/snapdeck"))
BASE_MIB = int(os.environ.get("BENCH_CHANGES_MIB", "768"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "50"))
SEED = os.environ.get("BENCH_SEED") or str(random.SystemRandom().randrange(10**6))
MIB, CLUSTER = 1 << 20, 65536
ROOT = os.path.join(LAB, "bench-changes")
URI = f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock"
NOISE = f"{ROOT}/scratch/noise"
ENV = {
    "PATH": os.environ["PATH"],
    "HOME": ROOT,
    "SNAPDECK_CONFIG": f"{ROOT}/config.toml",
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "S3_ENDPOINT_URL": STORE,
}
exceeded = 0


def run(*argv, check=True):
    done = subprocess.run(argv, env=ENV, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"{argv} failed: {done.stderr}")
    return done.stdout


def snapdeck(*args):
    return json.loads(run(SNAPDECK, *args, "--json"))


def report(figure, value, limit, unit="MiB"):
    global exceeded
    exceeded += value > limit
    print(f"  {figure:<58} {value:8.1f} of {limit:8.1f} {unit:<4} {'ok' if value <= limit else 'EXCEEDED'}", flush=True)


def configure():
    for name in ("snapshots", "sandboxes", "scratch"):
        os.makedirs(f"{ROOT}/{name}")
    with open(ENV["SNAPDECK_CONFIG"], "w") as config:
        config.write(
            f'[[hosts]]\nname = "bench"\nuri = "{URI}"\nsnapshots_dir = "{ROOT}/snapshots"\n'
            f'sandboxes_dir = "{ROOT}/sandboxes"\ntemp_dir = "{ROOT}/none"\nowner = "{os.getuid()}:{os.getgid()}"\n'
            f'[bucket]\nname = "{BUCKET}"\nprefix = "bench-changes/"\nendpoint = "{STORE}"\nregion = "us-east-1"\n'
            f'access_key_id = "{KEY}"\nsecret_access_key = "{SECRET}"\n'
        )


def create_base(name, mebibytes, virtual_mib, options=()):
    path = f"{ROOT}/snapshots/{name}.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, f"{virtual_mib}M")
    for start in range(0, mebibytes, 64):
        write(path, start * MIB, min(64, mebibytes - start) * MIB)
    return path


def qemu_io(disk, *commands):
    argv = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "qcow2", "-d", "unmap", *argv, disk)


def write(disk, offset, length):
    """Writes random data."""
    with open(NOISE, "wb") as noise:
        noise.write(os.urandom(length))
    qemu_io(disk, f"write -q -s {NOISE} {offset} {length}")


def define(name, base):
    disk = f"{ROOT}/sandboxes/{name}.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, disk)
    with open(f"{ROOT}/vm.xml", "w") as xml:
        xml.write(
            f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os>"
            "<type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<driver name='qemu' type='qcow2' discard='unmap'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"
            "</devices></domain>"
        )
    run("virsh", "-q", "-c", URI, "define", f"{ROOT}/vm.xml")
    return disk


def undefine(name):
    run("virsh", "-q", "-c", URI, "destroy", name, check=False)
    run("virsh", "-q", "-c", URI, "undefine", name)


def push(sandbox, name, verb="push"):
    """Returns the MiB uploaded."""
    return snapdeck(verb, sandbox, name)["uploadedBytes"] / MIB


def check(name, disk):
    file = f"{ROOT}/scratch/downloaded.qcow2"
    run(S5CMD, "cp", f"s3://{BUCKET}/bench-changes/{name}.qcow2", file)
    run("qemu-img", "check", "-q", file)
    run("qemu-img", "compare", "-q", file, disk)
    os.remove(file)


def versions():
    """A sandbox of which several versions are pushed, and pulled on a host that has the one before."""
    print(f"versions of one sandbox: base of {BASE_MIB} MiB, overlay of 200 MiB in 20 places")
    base = create_base("base", BASE_MIB, 2 * BASE_MIB)
    run(S5CMD, "cp", base, f"s3://{BUCKET}/bench-changes/base.qcow2")
    os.remove(base)
    snapdeck("pull", "base")
    disk = define("bench-versions", base)
    places = [place * 2 * BASE_MIB // 20 * MIB for place in range(20)]
    for place in places:
        write(disk, place, 10 * MIB)
    changes = [
        ("v1", 0, 0),
        ("v2", 14 * MIB, 0),
        ("v3", MIB, 3 * CLUSTER),
        ("v4", MIB, 0),
        ("v5", MIB, CLUSTER),
    ]
    for number, (name, written, discarded) in enumerate(changes):
        if written:
            write(disk, places[number] + 20 * MIB, written)
        if discarded:
            qemu_io(disk, f"discard {places[number + 8] + 4 * MIB} {discarded}")
        sent = push("bench-versions", name)
        fetched = snapdeck("pull", name)["fetchedBytes"] / MIB
        check(name, disk)
        limit = {"v1": 1.05 * 200 + 16, "v2": 14 + 18}.get(name, 16)
        change = f"{name}: +{written / MIB:.0f} MiB, {discarded >> 10} KiB discarded"
        report(f"{change}, uploaded", sent, limit)
        report(f"{change}, downloaded", fetched, limit)
    undefine("bench-versions")


def own_bases():
    """Bases that snapdeck did not pull: never in the bucket, uploaded by another client, with preallocated metadata."""
    print("bases of the host itself, overlay of 26 MiB")
    for name, is_uploaded in (("own", False), ("uploaded", True)):
        base = create_base(name, 256, 1024)
        if is_uploaded:
            run(S5CMD, "cp", "-p", "8", base, f"s3://{BUCKET}/bench-changes/{name}.qcow2")
        disk = define(f"bench-{name}", base)
        write(disk, 300 * MIB, 26 * MIB)
        first, second = push(f"bench-{name}", f"{name}-1"), push(f"bench-{name}", f"{name}-2")
        check(f"{name}-2", disk)
        limit = 1.05 * 26 + 8
        report(f"{name}: first push", first, limit if is_uploaded else 1.05 * (256 + 26) + 8)
        report(f"{name}: second push", second, limit)
        undefine(f"bench-{name}")
    base = create_base("preallocated", 26, 1024, ("-o", "preallocation=metadata"))
    disk = define("bench-preallocated", base)
    write(disk, 300 * MIB, 26 * MIB)
    report("preallocated metadata, 1 GiB: first push", push("bench-preallocated", "preallocated-1"), 1.05 * 52)
    check("preallocated-1", disk)
    undefine("bench-preallocated")


def running():
    print("create of a running sandbox, overlay of 26 MiB")
    disk = define("bench-running", create_base("running", 128, 1024))
    write(disk, 300 * MIB, 26 * MIB)
    run("virsh", "-q", "-c", URI, "start", "bench-running")
    for number in range(1, 4):
        sent = push("bench-running", f"running-{number}", "create")
        report(f"create {number}", sent, 1.05 * (128 + 26) + 8 if number == 1 else 1.05 * 26 + 8)
    run("virsh", "-q", "-c", URI, "destroy", "bench-running")
    check("running-3", disk)
    undefine("bench-running")


def walk():
    """Random changes, each followed by a push that is compared with the disk."""
    print(f"{ROUNDS} random changes (BENCH_SEED={SEED})")
    chance = random.Random(SEED)
    base = create_base("walk", 64, 256)
    disk, copy = define("bench-walk", base), f"{ROOT}/scratch/copy.qcow2"
    write(disk, 0, 48 * MIB)
    size, sent, full = 256, 0.0, 0.0
    for number in range(ROUNDS):
        change = chance.choice(["write", "write", "zero", "discard", "resize", "kill", "save", "revert"])
        offset, length = chance.randrange(0, size - 8) * MIB, chance.randrange(1, 64) * CLUSTER
        match change:
            case "write":
                write(disk, offset + chance.randrange(0, 8) * 512, length)
            case "zero":
                qemu_io(disk, f"write -q -z {'-u ' * chance.randrange(2)}{offset} {length}")
            case "discard":
                qemu_io(disk, f"discard {offset} {length}")
            case "resize":
                size += chance.randrange(1, 8)
                run("qemu-img", "resize", "-q", disk, f"{size}M")
            case "save":
                shutil.copyfile(disk, copy)
            case "revert" if os.path.exists(copy):
                shutil.copyfile(copy, disk)
                size = json.loads(run("qemu-img", "info", "--output=json", disk))["virtual-size"] // MIB
            case "kill":
                child = subprocess.Popen([SNAPDECK, "push", "bench-walk", f"walk-{number}"], env=ENV, stderr=subprocess.DEVNULL)
                time.sleep(chance.random() * 1.5)
                child.kill()
                child.wait()
        result = snapdeck("push", "bench-walk", f"walk-{number}", "--overwrite")
        sent, full = sent + result["uploadedBytes"] / MIB, full + result["sizeBytes"] / MIB
        check(f"walk-{number}", disk)
    report("uploaded, all rounds", sent, full / 3)
    undefine("bench-walk")


os.makedirs(ROOT)
configure()
versions()
own_bases()
running()
walk()
run(S5CMD, "rm", f"s3://{BUCKET}/bench-changes/*")
shutil.rmtree(ROOT)
sys.exit(1 if exceeded else 0)
