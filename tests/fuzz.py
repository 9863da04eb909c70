#!/usr/bin/env python3
"""Runs each fuzz target (`fn fuzz_...` in the unit tests) for FUZZ_SECONDS (300) and prints a table.

Several at a time (FUZZ_JOBS, the number of processors). FUZZ_TARGET selects those whose name contains it. Exit code 1
means that there are findings: their inputs are in .lab/fuzz. A seed of a target that is added with each fix keeps it fixed.
"""

import concurrent.futures
import json
import os
import pathlib
import random
import re
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = float(os.environ.get("FUZZ_SECONDS", "300"))
JOBS = int(os.environ.get("FUZZ_JOBS", os.cpu_count() or 1))
SELECTED = os.environ.get("FUZZ_TARGET", "")
SEED = int(os.environ.get("FUZZ_SEED", random.randrange(1 << 32)))
FINDINGS = PROJECT / ".lab" / "fuzz"


def build():
    """Builds the unit tests of the crates with targets, which count branches, and returns the path of each binary."""
    environment = {**os.environ, "RUSTC_WORKSPACE_WRAPPER": str(PROJECT / "tests" / "fuzz-rustc.sh")}
    command = ["cargo", "test", "--locked", "--lib", "--no-run", "--message-format=json"]
    for manifest in sorted(PROJECT.glob("src/*/Cargo.toml")):
        if any("fn fuzz_" in path.read_text() for path in manifest.parent.rglob("*.rs")):
            command += ["-p", f"snapdeck-{manifest.parent.name}"]
    built = subprocess.run(command, env=environment, stdout=subprocess.PIPE, cwd=PROJECT, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith(b"{")]
    return [message["executable"] for message in messages if message.get("executable")]


def list_targets(binary):
    listed = subprocess.run([binary, "fuzz_", "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.findall(r"^(\S+): test$", listed, re.MULTILINE)


def fuzz(binary, test):
    """Runs a target and returns its row, and what to print of a finding."""
    crate = pathlib.Path(binary).name.rsplit("-", 1)[0]
    directory = FINDINGS / f"{crate}.{test.replace('::', '.')}"
    directory.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "SNAPDECK_FUZZ_SECONDS": str(SECONDS),
        "SNAPDECK_FUZZ_SEED": str(SEED),
        "SNAPDECK_FUZZ_DIR": str(directory),
    }
    command = [binary, "--exact", test, "--nocapture", "--test-threads", "1"]
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=PROJECT)
    output = ran.stdout.decode(errors="replace")
    name, cases, branches = test, "?", "?"
    found = re.search(r"fuzzed: (.*): (\d+) cases, (\d+) branches", output)
    if found:
        name, cases, branches = found.groups()
    if ran.returncode == 0:
        return (name, cases, branches, 0), ""
    inputs = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime)
    repeat = f"SNAPDECK_FUZZ_INPUT={inputs[-1]} {' '.join(command[:-2])}" if inputs else " ".join(command)
    return (name, cases, branches, 1), f"{output[-6000:]}\nrepeat it: {repeat}\n"


def main():
    targets = [(binary, test) for binary in build() for test in list_targets(binary) if SELECTED in test]
    print(f"{len(targets)} targets, {SECONDS:.0f} s each, seed {SEED}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(lambda target: fuzz(*target), targets))
    print(f"{'target':40} {'cases':>10} {'branches':>9} {'findings':>9}")
    for (name, cases, branches, findings), _ in results:
        print(f"{name:40} {cases:>10} {branches:>9} {findings:>9}")
    for (name, *_), finding in results:
        if finding:
            print(f"\n== {name}\n{finding}")
    sys.exit(1 if any(finding for _, finding in results) else 0)


main()
