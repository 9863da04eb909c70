#!/usr/bin/env python3
"""Compares a push with `qemu-img convert` and the faster of s5cmd and rclone, alternating on the same machine and store.

Runs in the lab (`make bench-push`). BENCH_BASE_MIB sets the size of the base (4096), BENCH_PERCENT how much of it the
overlay changes (5). Prints a line for each figure with its limit; exit code 1 if one is exceeded.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time

LAB = os.environ["SNAPDECK_LAB"]
KEY, SECRET = os.environ["SNAPDECK_LAB_S3_KEY"], os.environ["SNAPDECK_LAB_S3_SECRET"]
BUCKET, S5CMD = os.environ["SNAPDECK_LAB_BUCKET"], os.environ["SNAPDECK_LAB_S5CMD"]
RCLONE = os.path.join(os.path.dirname(S5CMD), "rclone")
SNAPDECK = os.path.abspath("target/release/snapdeck")
BASE_MIB = int(os.environ.get("BENCH_BASE_MIB", "4096"))
PERCENT = int(os.environ.get("BENCH_PERCENT", "5"))
MIB = 1 << 20
CLUSTER = 65536
ROOT = os.path.join(LAB, "bench")
SOCKET = f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock"

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": ROOT,
    "SNAPDECK_CONFIG": f"{ROOT}/config.toml",
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "RCLONE_CONFIG_LAB_TYPE": "s3",
    "RCLONE_CONFIG_LAB_PROVIDER": "Other",
    "RCLONE_CONFIG_LAB_ACCESS_KEY_ID": KEY,
    "RCLONE_CONFIG_LAB_SECRET_ACCESS_KEY": SECRET,
    "RCLONE_CONFIG_LAB_USE_MULTIPART_ETAG": "false",
}


class Cost:
    """Elapsed seconds, processor seconds, and peak memory in KiB."""

    def __init__(self, wall=0.0, cpu=0.0, peak=0):
        self.wall, self.cpu, self.peak = wall, cpu, peak

    def __add__(self, other):
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak))

    def __str__(self):
        return f"{self.wall:7.2f} s, {self.cpu:6.2f} s of CPU, {self.peak / 1024:5.0f} MiB"


def measure(*argv):
    """Runs a command that must succeed; returns its output and cost."""
    # Flush the data of the previous run.
    os.sync()
    start = time.monotonic()
    with open(f"{ROOT}/stdout", "w+b") as stdout, open(f"{ROOT}/stderr", "w+b") as stderr:
        child = subprocess.Popen(argv, stdout=stdout, stderr=stderr, env=ENV)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - start
        stdout.seek(0)
        stderr.seek(0)
        if child.returncode:
            sys.exit(f"{argv} failed: {stderr.read().decode()}")
        cost = Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
        return stdout.read().decode(), cost


def run(*argv):
    return measure(*argv)[0]


def snapdeck(*args):
    stdout, cost = measure(SNAPDECK, *args, "--json")
    return json.loads(stdout), cost


def configure(store):
    """Sets the store for snapdeck and the other clients."""
    ENV["S3_ENDPOINT_URL"] = ENV["RCLONE_CONFIG_LAB_ENDPOINT"] = store
    with open(f"{ROOT}/config.toml", "w") as config:
        # temp_dir does not exist: a push that needs it fails.
        config.write(
            f'[[hosts]]\nname = "bench"\nuri = "{SOCKET}"\nsnapshots_dir = "{ROOT}/snapshots"\n'
            f'sandboxes_dir = "{ROOT}/sandboxes"\ntemp_dir = "{ROOT}/none"\nowner = "{os.getuid()}:{os.getgid()}"\n'
            f'[bucket]\nname = "{BUCKET}"\nprefix = "bench/"\nendpoint = "{store}"\nregion = "us-east-1"\n'
            f'access_key_id = "{KEY}"\nsecret_access_key = "{SECRET}"\n'
        )


def prepare():
    """Creates a sandbox; returns its disk and base."""
    for name in ("snapshots", "sandboxes", "scratch", "store"):
        os.makedirs(f"{ROOT}/{name}")
    raw = f"{ROOT}/scratch/raw"
    disk, base = f"{ROOT}/sandboxes/vm.qcow2", f"{ROOT}/snapshots/base.qcow2"
    with open("/dev/urandom", "rb") as noise, open(raw, "wb") as file:
        for _ in range(BASE_MIB):
            file.write(noise.read(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base)
    run("qemu-img", "resize", "-q", base, f"{2 * BASE_MIB}M")
    os.remove(raw)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, disk)
    write_overlay(disk)
    with open(f"{ROOT}/vm.xml", "w") as xml:
        xml.write(
            "<domain type='qemu'><name>bench-vm</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os>"
            "<type arch='x86_64' machine='pc'>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"
            "</devices></domain>"
        )
    run("virsh", "-q", "-c", SOCKET, "define", f"{ROOT}/vm.xml")
    return disk, base


def write_overlay(disk):
    """Writes the data of the overlay in runs of 256 KiB, spread over the disk."""
    noise, run_bytes = f"{ROOT}/scratch/noise", 256 << 10
    with open(noise, "wb") as file:
        file.write(os.urandom(run_bytes))
    count = BASE_MIB * PERCENT * MIB // 100 // run_bytes
    offsets = random.Random(1).sample(range(2 * BASE_MIB * MIB // run_bytes), count)
    commands = [f"write -q -s {noise} {offset * run_bytes} {run_bytes}" for offset in offsets]
    for start in range(0, count, 500):
        argv = [word for command in commands[start : start + 500] for word in ("-c", command)]
        run("qemu-io", "-f", "qcow2", *argv, disk)


def overlay_data(disk):
    """Returns the bytes of data of the overlay, and those of the tables of the whole image."""
    layers = json.loads(run("qemu-img", "map", "--output=json", disk))
    data = sum(extent["length"] for extent in layers if extent["data"] and extent["depth"] == 0)
    virtual = 2 * BASE_MIB * MIB
    l2 = virtual // CLUSTER * 8
    refcounts = (BASE_MIB * MIB + data) // CLUSTER * 2
    return data, l2 + refcounts + 8 * CLUSTER


def classic(disk):
    """Converts the disk and uploads it with the faster client."""
    flat = f"{ROOT}/scratch/flat.qcow2"
    _, convert = measure("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", disk, flat)
    _, by_s5cmd = measure(S5CMD, "cp", flat, f"s3://{BUCKET}/bench/classic-1.qcow2")
    _, by_rclone = measure(
        RCLONE, "copyto", "--ignore-times", "--s3-no-check-bucket", "--s3-upload-cutoff=0", flat, f"lab:{BUCKET}/bench/classic-2.qcow2"
    )
    for name, cost in (("qemu-img convert", convert), ("s5cmd", by_s5cmd), ("rclone", by_rclone)):
        print(f"  {name:<18} {cost}")
    os.remove(flat)
    return convert + min(by_s5cmd, by_rclone, key=lambda cost: cost.wall)


def empty_store():
    """Removes each object by name: a store that only copies ranges does not list them."""
    for name in ("base", "pushed", "full", "classic-1", "classic-2"):
        for ending in ("qcow2", "json"):
            argv = (RCLONE, "deletefile", "--s3-no-check-bucket", f"lab:{BUCKET}/bench/{name}.{ending}")
            # Some do not exist.
            subprocess.run(argv, env=ENV, stdin=subprocess.DEVNULL, capture_output=True)


def bench(name, disk, base, limit):
    """Pushes to the current store; returns the number of exceeded limits."""
    run(S5CMD, "cp", base, f"s3://{BUCKET}/bench/base.qcow2")
    os.remove(base)
    # It names the object of the last store.
    with contextlib.suppress(FileNotFoundError):
        os.remove(base.removesuffix(".qcow2") + ".json")
    # The disk that is based on it is a reason to ask.
    snapdeck("pull", "base", "--overwrite")
    data, tables = overlay_data(disk)
    print(f"{name}: base of {BASE_MIB} MiB, overlay of {data / MIB:.0f} MiB", flush=True)
    result, push = snapdeck("push", "bench-vm", "pushed")
    print(f"  {'push':<18} {push}", flush=True)
    pair = classic(disk)
    downloaded = f"{ROOT}/scratch/downloaded.qcow2"
    run(S5CMD, "cp", f"s3://{BUCKET}/bench/pushed.qcow2", downloaded)
    run("qemu-img", "check", "-q", downloaded)
    run("qemu-img", "compare", "-q", downloaded, disk)
    os.remove(downloaded)
    # No object has any of its blocks.
    empty_store()
    whole, full = snapdeck("push", "bench-vm", "full")
    print(f"  {'push without the base':<18} {full}", flush=True)
    empty_store()
    assert whole["copiedBytes"] == 0, whole
    sent, max_bytes = result["uploadedBytes"], 1.02 * data + 8 * MIB + tables
    figures = [
        ("bytes uploaded", sent / MIB, max_bytes / MIB, "MiB"),
        ("time, to convert and upload", push.wall / pair.wall, limit, ""),
        ("CPU, to convert and upload", push.cpu / pair.cpu, 1 / 20, ""),
        ("time without the base in the store", full.wall / pair.wall, 0.75, ""),
        ("memory", max(push.peak, full.peak) / 1024, 128, "MiB"),
    ]
    exceeded = 0
    for figure, value, limit_, unit in figures:
        verdict = "ok" if value <= limit_ else "EXCEEDED"
        exceeded += value > limit_
        print(f"  {figure:<28} {value:9.3f} of {limit_:9.3f} {unit:<5} {verdict}", flush=True)
    # temp_dir does not exist.
    print("  temporary space                      0 bytes")
    return exceeded


def main():
    disk, base = prepare()
    configure(os.environ["SNAPDECK_LAB_S3"])
    exceeded = bench("SeaweedFS", disk, base, 1 / 3)
    with subprocess.Popen(
        [sys.executable, os.path.join(os.path.dirname(__file__), "range-store.py"), f"{ROOT}/store"],
        stdout=subprocess.PIPE,
        text=True,
    ) as store:
        try:
            configure(f"http://127.0.0.1:{store.stdout.readline().strip()}")
            exceeded += bench("a store that copies parts at no cost", disk, base, 1 / 15)
        finally:
            store.kill()
    run("virsh", "-q", "-c", SOCKET, "undefine", "bench-vm")
    shutil.rmtree(ROOT)
    sys.exit(1 if exceeded else 0)


os.makedirs(ROOT)
main()
