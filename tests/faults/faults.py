#!/usr/bin/env python3
"""Attacks snapdeck on real parts and prints a table: row, tried, survived. Exit code 1 if a row is below 100 %.

Runs in the lab (`make faults`). FAULTS_KILLS is the number of kills over all rows of kills (200), FAULTS_TRIES that of
each other row (6). FAULTS_ROW selects the rows whose name contains it (several: with commas), FAULTS_SEED and FAULTS_TRY
repeat a try that failed. FAULTS_WORKERS is the number of rows at a time (2), FAULTS_SECONDS the time after which no try is
begun; with FAULTS_MIXED the rows are in an order that the seed gives.

After each try: no guest is paused, every final name has whole and proven content, base images and everything of others
are unchanged; the same command again finishes the work, and then nothing is left. Files of a failed try are kept in
.lab/faults.
"""

import os
import random
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import checks
import golden
from rows import rows
from trial import Trial, unignored

SEED = os.environ.get("FAULTS_SEED") or str(random.SystemRandom().randrange(10**6))
KILLS = int(os.environ.get("FAULTS_KILLS", "200"))
TRIES = int(os.environ.get("FAULTS_TRIES", "6"))
ONLY = [part.strip() for part in os.environ.get("FAULTS_ROW", "").split(",") if part.strip()]
TRY = os.environ.get("FAULTS_TRY")
# For work on other violations: those that match are not counted.
IGNORED = os.environ.get("FAULTS_IGNORE")
WORKERS = int(os.environ.get("FAULTS_WORKERS", "2"))
# Seconds after which no try is begun.
LIMIT = float(os.environ.get("FAULTS_SECONDS", "inf"))
# Whether rows are tried in an order that the seed gives.
MIXED = os.environ.get("FAULTS_MIXED")
BEGAN = time.monotonic()
output_lock = threading.Lock()


def say(text):
    with output_lock:
        print(text, flush=True)


def run_row(row):
    """Runs all tries of a row; returns (tried, survived, reason why it was skipped)."""
    if row.skipped:
        return 0, 0, row.skipped
    trials = [Trial(row, scenario) for scenario in row.scenarios]
    tried = survived = 0
    began = time.monotonic()
    for number in [int(TRY)] if TRY else range(row.tries):
        if time.monotonic() - BEGAN > LIMIT:
            break
        trial = trials[number % len(trials)]
        seed = f"{SEED}:{row.slug}:{number}"
        try:
            done, problems = trial.attempt(seed)
        except Exception:
            done, problems = "the harness failed", [traceback.format_exc()]
            trial.close()
        if done != "undisturbed":
            problems = unignored(problems)
        tried += 1
        survived += not problems
        if problems or os.environ.get("FAULTS_VERBOSE"):
            verdict = "VIOLATED" if problems else "survived"
            say(f"{verdict} {row.name}: {trial.scenario.name}\n{indent(done)}")
        if problems:
            say("".join(f"  violated: {problem}\n" for problem in problems)
                + f"  again: FAULTS_SEED={SEED} FAULTS_ROW='{row.name}' FAULTS_TRY={number} make faults")
            if done == "undisturbed":
                break
    for trial in trials:
        trial.close()
    say(f"  {row.name:<48} {survived} of {tried}, {time.monotonic() - began:.0f} s")
    return tried, survived, None


def indent(text):
    return "\n".join(f"    {line}" for line in text.splitlines())


def main():
    golden.create()
    selected = [row for row in rows(KILLS, TRIES) if not ONLY or any(part in row.name for part in ONLY)]
    if MIXED:
        # A part that is bounded in time meets rows of all kinds.
        random.Random(SEED).shuffle(selected)
    print(f"FAULTS_SEED={SEED}: {len(selected)} rows, {sum(row.tries for row in selected)} tries", flush=True)
    if IGNORED:
        print(f"FAULTS_IGNORE={IGNORED}: such violations are not counted")
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(run_row, selected))
    left = checks.lingering() if any(row.over_ssh for row in selected) else []
    for process in left:
        print(f"VIOLATED: a connection of ssh still runs: {process}")
    print(f"\n{'row':<50} {'tried':>6} {'survived':>9}")
    failed = len(left)
    for row, (tried, survived, skipped) in zip(selected, results, strict=True):
        share = f"{100 * survived // tried:>7} %" if tried else "  skipped: " + (skipped or "no time left")
        failed += survived < tried
        print(f"{row.name:<50} {tried:>6} {survived:>9} {share}")
    total, kept = sum(tried for tried, _, _ in results), sum(survived for _, survived, _ in results)
    print(f"{'all':<50} {total:>6} {kept:>9}   in {time.monotonic() - BEGAN:.0f} s, FAULTS_SEED={SEED}")
    sys.exit(1 if failed else 0)


def enter_namespace():
    """Runs this program again in a mount namespace of its own: others would keep the small disks mounted."""
    if os.environ.get("FAULTS_NAMESPACE") or os.geteuid() != 0:
        return
    os.environ["FAULTS_NAMESPACE"] = f"/proc/{os.getpid()}/ns/mnt"
    again = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
    sys.exit(subprocess.run(again, check=False).returncode)


if __name__ == "__main__":
    enter_namespace()
    main()
