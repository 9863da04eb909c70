#!/usr/bin/env python3
"""Measures how long a guest is paused for a snapshot, by the gaps between its writes, and for qemu-img convert.

Runs in the lab (`make bench-pause`). BENCH_OVERLAY_MIB sets the size of the overlay (2048), BENCH_RUNS the number of
snapshots (20), BENCH_CONVERT_RUNS the number of snapshots with convert (3). Each object is downloaded and must be of one
point in time. Prints a line for each figure with its limit; exit code 1 if one is exceeded.
"""

import datetime
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

LAB = os.environ["SNAPDECK_LAB"]
KEY, SECRET = os.environ["SNAPDECK_LAB_S3_KEY"], os.environ["SNAPDECK_LAB_S3_SECRET"]
BUCKET, S5CMD, STORE = (os.environ[f"SNAPDECK_LAB_{name}"] for name in ("BUCKET", "S5CMD", "S3"))
SNAPDECK = os.path.abspath(os.environ.get("BENCH_SNAPDECK", "target/release/snapdeck"))
GUEST = os.path.abspath(".lab/guest")
OVERLAY_MIB = int(os.environ.get("BENCH_OVERLAY_MIB", "2048"))
RUNS = int(os.environ.get("BENCH_RUNS", "20"))
CONVERT_RUNS = int(os.environ.get("BENCH_CONVERT_RUNS", "3"))
MIB = 1 << 20
ROOT = os.path.join(LAB, "bench")
SOCKET = f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock"
BASE, DISK = f"{ROOT}/snapshots/base.qcow2", f"{ROOT}/sandboxes/vm.qcow2"
# Seconds of writes that are measured before a snapshot, and after its pause.
BEFORE, AFTER = 5, 1

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": ROOT,
    "SNAPDECK_CONFIG": f"{ROOT}/config.toml",
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "S3_ENDPOINT_URL": STORE,
    "SNAPDECK_LOG": "snapdeck=debug",
}


def run(*argv):
    return subprocess.run(argv, env=ENV, check=True, stdout=subprocess.PIPE, text=True).stdout


def virsh(*args):
    return run("virsh", "-q", "-c", SOCKET, *args)


def checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def configure(methods):
    """Sets the method for running sandboxes."""
    with open(f"{ROOT}/config.toml", "w") as config:
        config.write(
            f'[[hosts]]\nname = "bench"\nuri = "{SOCKET}"\nsnapshots_dir = "{ROOT}/snapshots"\n'
            f'sandboxes_dir = "{ROOT}/sandboxes"\ntemp_dir = "{ROOT}/temp"\nowner = "{os.getuid()}:{os.getgid()}"\n'
            f'running = "{methods}"\n[bucket]\nname = "{BUCKET}"\nprefix = "bench/"\nendpoint = "{STORE}"\n'
            f'region = "us-east-1"\naccess_key_id = "{KEY}"\nsecret_access_key = "{SECRET}"\n'
        )


def prepare():
    """Creates a guest that writes, on an overlay full of other data."""
    for name in ("snapshots", "sandboxes", "temp"):
        os.makedirs(f"{ROOT}/{name}")
    disk_mib = 4 * OVERLAY_MIB + 2048
    run("qemu-img", "create", "-q", "-f", "qcow2", BASE, f"{disk_mib}M")
    noise = f"{ROOT}/noise"
    with open(noise, "wb") as file:
        file.write(os.urandom(MIB))
    # Data that is not replaced, so that the base is not compacted.
    run("qemu-io", "-f", "qcow2", *(word for at in range(600, 664) for word in ("-c", f"write -q -s {noise} {at}M 1M")), BASE)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", BASE, DISK)
    offsets = random.Random(1).sample(range(1024, disk_mib), OVERLAY_MIB)
    for start in range(0, len(offsets), 1000):
        writes = [f"write -q -s {noise} {at}M 1M" for at in offsets[start : start + 1000]]
        run("qemu-io", "-f", "qcow2", *(word for write in writes for word in ("-c", write)), DISK)
    with open(f"{ROOT}/vm.xml", "w") as xml:
        xml.write(
            "<domain type='qemu'><name>bench-vm</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>"
            f"<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{GUEST}/kernel</kernel>"
            f"<initrd>{GUEST}/initrd</initrd><cmdline>console=ttyS0 quiet panic=-1 scatter report</cmdline></os>"
            "<features><acpi/></features><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{DISK}'/><target dev='vda' bus='virtio'/></disk><serial type='unix'>"
            f"<source mode='bind' path='{ROOT}/serial'/><target port='0'/></serial></devices></domain>"
        )
    virsh("define", f"{ROOT}/vm.xml")
    virsh("start", "bench-vm")


class Writes:
    """Times at which the guest reported its records."""

    def __init__(self):
        self.times = []
        self.serial = socket.socket(socket.AF_UNIX)
        self.serial.connect(f"{ROOT}/serial")
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.serial.makefile("rb"):
            if line.startswith(b"guest wrote "):
                self.times.append(time.monotonic())

    def longest_gap(self, start, end):
        """Returns the longest gap between writes from `start` to `end`, in milliseconds."""
        times = list(self.times)
        first = max((at for at, when in enumerate(times) if when <= start), default=0)
        last = min((at for at, when in enumerate(times) if when >= end), default=len(times) - 1)
        part = times[first : last + 1]
        return 1000 * max(after - before for before, after in zip(part, part[1:]))

    def gap_at(self, time_):
        """Returns the length of the gap between writes at a time, in milliseconds."""
        times = list(self.times)
        pairs = zip(times, times[1:])
        return 1000 * next(after - before for before, after in pairs if before <= time_ <= after)

    def wait_past(self, time_):
        while not self.times or self.times[-1] < time_:
            time.sleep(0.05)


def snapshot(name):
    """Creates a snapshot; returns its result, and the times of start, pause and resume."""
    start, paused_at, resumed_at = time.monotonic(), None, None
    argv = [SNAPDECK, "create", "bench-vm", name, "--json", "-vv"]
    with subprocess.Popen(argv, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        lines = []
        for line in child.stderr:
            lines.append(line)
            if " paused after" in line:
                # The time of the log line, not of reading it.
                ago = time.time() - datetime.datetime.fromisoformat(line.split()[0]).timestamp()
                paused_at = time.monotonic() - ago
            if " resumed after" in line:
                resumed_at = time.monotonic()
        stdout = child.stdout.read()
    if child.returncode or resumed_at is None:
        sys.exit(f"create failed: {''.join(lines)}")
    return json.loads(stdout), start, paused_at, resumed_at


def records(name):
    """Returns the last record in the object; exits if an earlier one is missing (tests/lab/guest.init)."""
    image, raw = f"{ROOT}/downloaded.qcow2", f"{ROOT}/downloaded.raw"
    run(S5CMD, "cp", f"s3://{BUCKET}/bench/{name}.qcow2", image)
    run("qemu-img", "check", "-q", image)
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
    with open(raw, "rb") as disk:

        def sector(number):
            disk.seek(number * 512)
            return disk.read(512).rstrip(b"\0").decode(errors="replace").strip()

        head = int(sector(8))
        for record in range(1, head + 1):
            if sector(2048 + record) != f"record {record}":
                sys.exit(f"{name}: the head is {head}, and record {record} is {sector(2048 + record)!r}")
        for record in range(max(1, head - 999), head + 1):
            found = sector(1048576 + 128 * (record * 7919 % 1000))
            if found != f"record {record}" and not (record + 1000 == head + 1 and found == f"record {head + 1}"):
                sys.exit(f"{name}: the head is {head}, and the scattered record {record} is {found!r}")
    os.remove(image)
    os.remove(raw)
    run(S5CMD, "rm", f"s3://{BUCKET}/bench/{name}.qcow2")
    return head


def measure(writes, method, count):
    """Creates snapshots; returns the gaps before, at, around and after their pauses, and the reported pauses."""
    configure(method)
    undisturbed, at_pause, around, total, reported = [], [], [], [], []
    for number in range(count):
        name = f"{method}-{number}"
        # Flush the downloaded data of the previous snapshot.
        os.sync()
        start = time.monotonic()
        writes.wait_past(start + BEFORE)
        undisturbed.append(writes.longest_gap(start, start + BEFORE))
        created, start, paused_at, resumed_at = snapshot(name)
        end = time.monotonic()
        writes.wait_past(max(end, resumed_at + AFTER))
        if created["method"] != method:
            sys.exit(f"{name} was created by {created['method']}")
        around.append(writes.longest_gap(start, resumed_at + AFTER))
        # Not logged for convert.
        at_pause.append(writes.gap_at(paused_at) if paused_at else around[-1])
        total.append(writes.longest_gap(start, end))
        reported.append(created["pausedMs"])
        head = records(name)
        print(
            f"  {name:<12} reported {reported[-1]:6} ms; longest gap: undisturbed {undisturbed[-1]:6.0f}, at the pause "
            f"{at_pause[-1]:6.0f}, within a second of it {around[-1]:6.0f}, until it was uploaded {total[-1]:6.0f} ms; "
            f"{head} records, complete",
            flush=True,
        )
    return undisturbed, at_pause, around, total, reported


def main():
    prepare()
    base = checksum(BASE)
    writes = Writes()
    writes.wait_past(0)
    overlay = os.stat(DISK).st_blocks * 512 / MIB
    print(f"overlay of {overlay:.0f} MiB, {RUNS} snapshots of a guest that writes and flushes", flush=True)
    undisturbed, at_pause, around, total, reported = measure(writes, "backup", RUNS)
    _, classic, _, _, classic_reported = measure(writes, "convert", CONVERT_RUNS)
    added = [gap - base for gap, base in zip(at_pause, undisturbed)]
    median = statistics.median
    figures = [
        ("pause less undisturbed gap, median", median(added), 50),
        ("pause as the guest sees it, at most", max(at_pause), 200),
    ]
    exceeded = 0
    for name, value, limit in figures:
        verdict = "ok" if value <= limit else "EXCEEDED"
        exceeded += value > limit
        print(f"  {name:<36} {value:9.1f} of {limit:6.1f} ms  {verdict}", flush=True)
    print(f"  {'pause, median':<36} {median(at_pause):9.1f} ms")
    print(f"  {'gap undisturbed, median, max':<36} {median(undisturbed):9.1f}, {max(undisturbed):.1f} ms")
    print(f"  {'within a second, median, max':<36} {median(around):9.1f}, {max(around):.1f} ms")
    print(f"  {'gap until uploaded, median, max':<36} {median(total):9.1f}, {max(total):.1f} ms")
    print(f"  {'reported pause, median, max':<36} {median(reported):9.1f}, {max(reported):.1f} ms")
    if classic:
        print(f"  {'by convert: gap, median, max':<36} {median(classic):9.1f}, {max(classic):.1f} ms")
        print(f"  {'by convert: reported pause, median':<36} {median(classic_reported):9.1f} ms")
    virsh("destroy", "bench-vm")
    virsh("undefine", "bench-vm")
    if checksum(BASE) != base:
        sys.exit("the base was written")
    print(f"  all {RUNS + CONVERT_RUNS} snapshots are of one point in time; the base is unchanged")
    shutil.rmtree(ROOT)
    sys.exit(1 if exceeded else 0)


os.makedirs(ROOT)
main()
