"""The lab's environment and processes with a deadline."""

import os
import subprocess
import time

LAB = os.environ["SNAPDECK_LAB"]
STORE = os.environ["SNAPDECK_LAB_S3"]
KEY, SECRET = os.environ["SNAPDECK_LAB_S3_KEY"], os.environ["SNAPDECK_LAB_S3_SECRET"]
BUCKET = os.environ["SNAPDECK_LAB_BUCKET"]
PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOST_SCRIPT = f"{PROJECT}/tests/lab/host.sh"
SNAPDECK = os.path.abspath(
    os.environ.get("SD") or os.path.join(os.environ.get("CARGO_TARGET_DIR", f"{PROJECT}/target"), "debug/snapdeck")
)
# The mount namespace in which the lab runs, if this process has one of its own; see faults.py.
NAMESPACE = os.environ.get("FAULTS_NAMESPACE")
# Longer than any program takes on a busy machine.
DEADLINE = 240
MIB = 1 << 20


class HarnessError(Exception):
    """A program of the harness failed, not snapdeck."""


class Output:
    """Exit code (negative: the signal) and output of a process."""

    def __init__(self, argv, code, stdout, stderr):
        self.argv, self.code = argv, code
        self.stdout, self.stderr = stdout.decode(errors="replace"), stderr.decode(errors="replace")

    def __str__(self):
        return f"$ {' '.join(self.argv)}\nexit code {self.code}\n{self.stdout}{self.stderr}".rstrip()


def output(*argv, env=None, deadline=DEADLINE, stdin=None):
    """Runs a program to its end."""
    try:
        ran = subprocess.run(argv, input=stdin, stdin=None if stdin else subprocess.DEVNULL, capture_output=True,
                             env=env, timeout=deadline)
    except subprocess.TimeoutExpired as expired:
        raise HarnessError(f"{' '.join(argv)} does not end within {deadline} s") from expired
    return Output(argv, ran.returncode, ran.stdout, ran.stderr)


def run(*argv, **options):
    """Runs a program that must succeed; returns its output."""
    ran = output(*argv, **options)
    if ran.code != 0:
        raise HarnessError(str(ran))
    return ran.stdout


def wait_until(condition, deadline=DEADLINE, interval=0.05):
    """Returns whether the condition became true before the deadline."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


def processes_with(text):
    """Returns [(pid, name, command line)] of processes whose command line or environment has `text`."""
    found, needle = [], text.encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"{entry.path}/cmdline", "rb") as file:
                command = file.read()
            with open(f"{entry.path}/environ", "rb") as file:
                environment = file.read()
            with open(f"{entry.path}/comm") as file:
                name = file.read().strip()
            with open(f"{entry.path}/stat") as file:
                is_zombie = file.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            continue
        if not is_zombie and (needle in command or needle in environment):
            found.append((int(entry.name), name, command.replace(b"\0", b" ").decode(errors="replace").strip()))
    return found


def process_tree(pid):
    """Returns a process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    found += [int(child) for child in file.read().split()]
        except OSError:
            pass
    return found
