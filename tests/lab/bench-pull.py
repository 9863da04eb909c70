#!/usr/bin/env python3
"""Compares a pull with the faster of s5cmd and rclone, and with `cp`, alternating on the same machine, store and disk.

Runs in the lab (`make bench-pull`). BENCH_BASE_MIB sets the size of the base (2048), BENCH_PERCENT how much of it the
next version changes (5). Prints a line for each figure with its limit; exit code 1 if one is exceeded.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

LAB = os.environ["SNAPDECK_LAB"]
KEY, SECRET = os.environ["SNAPDECK_LAB_S3_KEY"], os.environ["SNAPDECK_LAB_S3_SECRET"]
BUCKET, S5CMD = os.environ["SNAPDECK_LAB_BUCKET"], os.environ["SNAPDECK_LAB_S5CMD"]
STORE = os.environ["SNAPDECK_LAB_S3"]
RCLONE = os.path.join(os.path.dirname(S5CMD), "rclone")
SNAPDECK = os.path.abspath("target/release/snapdeck")
BASE_MIB = int(os.environ.get("BENCH_BASE_MIB", "2048"))
PERCENT = int(os.environ.get("BENCH_PERCENT", "5"))
TRIES = int(os.environ.get("BENCH_TRIES", "3"))
MIB = 1 << 20
BLOCK = 8 * MIB
ROOT = os.path.join(LAB, "bench")
SOCKET = f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock"
HOSTS = ("plain", "shared")

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": ROOT,
    "SNAPDECK_CONFIG": f"{ROOT}/config.toml",
    "S3_ENDPOINT_URL": STORE,
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "RCLONE_CONFIG_LAB_TYPE": "s3",
    "RCLONE_CONFIG_LAB_PROVIDER": "Other",
    "RCLONE_CONFIG_LAB_ENDPOINT": STORE,
    "RCLONE_CONFIG_LAB_ACCESS_KEY_ID": KEY,
    "RCLONE_CONFIG_LAB_SECRET_ACCESS_KEY": SECRET,
    "RCLONE_CONFIG_LAB_USE_MULTIPART_ETAG": "false",
}


class Cost:
    """Elapsed seconds and peak memory in KiB."""

    def __init__(self, wall, peak):
        self.wall, self.peak = wall, peak

    def __str__(self):
        return f"{self.wall:7.2f} s, {self.peak / 1024:5.0f} MiB"


def measure(*argv, env=ENV):
    """Runs a command that must succeed; returns its output and cost."""
    start = time.monotonic()
    with open(f"{ROOT}/stdout", "w+b") as stdout, open(f"{ROOT}/stderr", "w+b") as stderr:
        child = subprocess.Popen(argv, stdout=stdout, stderr=stderr, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - start
        stdout.seek(0)
        stderr.seek(0)
        if child.returncode:
            sys.exit(f"{argv} failed: {stderr.read().decode()}")
        return stdout.read().decode(), Cost(wall, usage.ru_maxrss)


def run(*argv):
    return measure(*argv)[0]


def pull(name, host, config="config"):
    env = ENV | {"SNAPDECK_CONFIG": f"{ROOT}/{config}.toml"}
    stdout, cost = measure(SNAPDECK, "pull", name, "--host", host, "--json", env=env)
    return json.loads(stdout), cost


def measure_download(*argv, file):
    """Downloads with another client, and syncs as a pull does."""
    if os.path.exists(file):
        os.remove(file)
    return measure("sh", "-c", '"$@" >/dev/null && sync "$0"', file, *argv)[1]


def best(name, costs):
    """Returns the fastest run: other load only makes a run slower."""
    cost = min(costs, key=lambda cost: cost.wall)
    print(f"  {name:<32} {cost}", flush=True)
    return cost


def configure():
    text = ""
    for host in HOSTS:
        os.makedirs(f"{ROOT}/{host}", exist_ok=True)
        text += (
            f'[[hosts]]\nname = "{host}"\nuri = "{SOCKET}"\nsnapshots_dir = "{ROOT}/{host}"\n'
            f'sandboxes_dir = "{ROOT}/none"\ntemp_dir = "{ROOT}/none"\nowner = "{os.getuid()}:{os.getgid()}"\n'
        )
    text += (
        f'[bucket]\nname = "{BUCKET}"\nprefix = "bench/"\nendpoint = "{STORE}"\nregion = "us-east-1"\n'
        f'access_key_id = "{KEY}"\nsecret_access_key = "{SECRET}"\n'
    )
    for name, more in (("config", ""), ("unchecked", "[pull]\ncheck_shared_blocks = false\n")):
        with open(f"{ROOT}/{name}.toml", "w") as config:
            config.write(text + more)


def digests(path):
    """Returns the SHA-256 of each block."""
    stdout = run("split", "-b", str(BLOCK), "--filter=sha256sum", path)
    return [bytes.fromhex(line.split()[0]) for line in stdout.splitlines()]


def put(path, name, parent=None):
    """Uploads an image and its manifest, as push does; returns its digests."""
    import base64

    run(S5CMD, "cp", path, f"s3://{BUCKET}/bench/{name}.qcow2")
    blocks = digests(path)
    manifest = {
        "format": 1,
        "name": name,
        "sizeBytes": os.path.getsize(path),
        "etag": run(S5CMD, "ls", "-e", f"s3://{BUCKET}/bench/{name}.qcow2").split()[2],
        "blocks": base64.b64encode(b"".join(blocks)).decode(),
    }
    if parent:
        manifest["parent"] = {"name": parent}
    with open(f"{ROOT}/manifest", "w") as file:
        json.dump(manifest, file)
    run(S5CMD, "cp", f"{ROOT}/manifest", f"s3://{BUCKET}/bench/{name}.json")
    return blocks


def create_images():
    """Creates a base, and a version of it with new clusters appended, as a composed push does."""
    raw, base, child = f"{ROOT}/raw", f"{ROOT}/base.qcow2", f"{ROOT}/child.qcow2"
    with open("/dev/urandom", "rb") as noise, open(raw, "wb") as file:
        for _ in range(BASE_MIB):
            file.write(noise.read(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base)
    run("qemu-img", "resize", "-q", base, f"{2 * BASE_MIB}M")
    os.remove(raw)
    shutil.copyfile(base, child)
    noise = f"{ROOT}/noise"
    with open(noise, "wb") as file:
        file.write(os.urandom(256 << 10))
    # Where the base has no data: new clusters are appended.
    count = BASE_MIB * PERCENT * MIB // 100 // (256 << 10)
    offsets = random.Random(1).sample(range(BASE_MIB * 4, 2 * BASE_MIB * 4), count)
    commands = [f"write -q -s {noise} {offset * (256 << 10)} {256 << 10}" for offset in offsets]
    for start in range(0, count, 500):
        argv = [word for command in commands[start : start + 500] for word in ("-c", command)]
        run("qemu-io", "-f", "qcow2", *argv, child)
    return base, child


def remove(host, name):
    for file in (f"{name}.qcow2", f"{name}.json"):
        if os.path.exists(f"{ROOT}/{host}/{file}"):
            os.remove(f"{ROOT}/{host}/{file}")


def measure_full_pull(name, host):
    remove(host, name)
    result, cost = pull(name, host)
    assert result["fetchedBytes"] == result["sizeBytes"], result
    return cost


def measure_delta_pull(host, config="config"):
    remove(host, "child")
    return pull("child", host, config)


def resumed_share():
    """Returns the share of bytes fetched by the pull after one that was killed at 90 %."""
    remove("plain", "base")
    resume_log = f"{ROOT}/plain/.base.qcow2.pull/partial.mark"
    blocks = -(-os.path.getsize(f"{ROOT}/base.qcow2") // BLOCK)
    child = subprocess.Popen(
        [SNAPDECK, "pull", "base", "--host", "plain"], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while child.poll() is None:
        if os.path.exists(resume_log) and open(resume_log).read().count("\t") - 1 >= blocks * 9 // 10:
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    result, _ = pull("base", "plain")
    return result["fetchedBytes"] / result["sizeBytes"]


def main():
    configure()
    disk = f"{ROOT}/disk"
    run("truncate", "-s", f"{5 * BASE_MIB // 2 + 512}M", disk)
    run("mkfs.xfs", "-q", "-m", "reflink=1", disk)
    run("mount", "-o", "loop", disk, f"{ROOT}/shared")
    try:
        exceeded = bench()
    finally:
        run("umount", f"{ROOT}/shared")
    shutil.rmtree(ROOT)
    sys.exit(1 if exceeded else 0)


def bench():
    base, child = create_images()
    base_digests = set(put(base, "base"))
    blocks = put(child, "child", "base")
    new = BASE_MIB * PERCENT * MIB // 100
    changed = sum(BLOCK for digest in blocks if digest not in base_digests)
    print(f"base of {BASE_MIB} MiB, {new / MIB:.0f} MiB new in the child, in changed blocks of {changed / MIB:.0f} MiB", flush=True)
    run("qemu-img", "check", "-q", child)
    target, times = f"{ROOT}/plain/other.qcow2", range(TRIES)
    source = f"{BUCKET}/bench/base.qcow2"
    s5cmd = best("s5cmd", [measure_download(S5CMD, "cp", f"s3://{source}", target, file=target) for _ in times])
    rclone = best("rclone", [measure_download(RCLONE, "copyto", f"lab:{source}", target, file=target) for _ in times])
    plain = best("pull", [measure_full_pull("base", "plain") for _ in times])
    copied = best("cp", [measure_download("cp", "--reflink=never", child, target, file=target) for _ in times])
    os.remove(target)
    deltas = [measure_delta_pull("plain") for _ in times]
    result, by_delta = deltas[-1][0], best("pull with the parent on the host", [cost for _, cost in deltas])
    run("cmp", child, f"{ROOT}/plain/child.qcow2")
    remove("plain", "child")
    whole = best("pull, on XFS", [measure_full_pull("base", "shared") for _ in times])
    shared = best("pull with the parent, on XFS", [measure_delta_pull("shared")[1] for _ in times])
    run("cmp", child, f"{ROOT}/shared/child.qcow2")
    unchecked = [measure_delta_pull("shared", "unchecked")[1] for _ in times]
    unchecked = best("the same, shared blocks unchecked", unchecked)
    hashed = best("sha256sum", [measure("sha256sum", child)[1] for _ in times])
    peak = max(cost.peak for cost in (plain, by_delta, whole, shared))
    figures = [
        ("full pull, to the faster client", plain.wall / min(s5cmd.wall, rclone.wall), 1.05, ""),
        # Always including the first block, with the header, and the one in which new clusters begin.
        ("bytes fetched", result["fetchedBytes"] / MIB, 1.1 * new / MIB + 16, "MiB"),
        ("with the parent, to cp", by_delta.wall / copied.wall, 1.3, ""),
        ("shared blocks unchecked, to a full pull", unchecked.wall / whole.wall, 0.1, ""),
        ("checked, to that and sha256sum", shared.wall / (unchecked.wall + hashed.wall), 1, ""),
        ("fetched after a kill at 90 %", resumed_share(), 0.12, ""),
        ("memory", peak / 1024, 128, "MiB"),
    ]
    exceeded = 0
    for name, value, limit, unit in figures:
        exceeded += value > limit
        print(f"  {name:<38} {value:9.3f} of {limit:7.3f} {unit:<4} {'ok' if value <= limit else 'EXCEEDED'}", flush=True)
    return exceeded


os.makedirs(ROOT)
main()
