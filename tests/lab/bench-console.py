#!/usr/bin/env python3
"""Measures the console in a pseudo terminal: release build, 100,000 objects, one host that answers, one
that never answers, and one that stops answering. Compares it with other terminal programs, if installed.

Runs in the lab (`make bench-console`). Prints a line for each figure with its limit; exit code 1 if one is exceeded.
BENCH_IDLE sets the seconds of the idle measurements (60), BENCH_OBJECTS the number of objects (100000). Processor time is
that of the threads (schedstat, in ns); wakeups are voluntary context switches. The console's own share is its main thread,
which only reads keys, draws and writes.
"""

import fcntl
import multiprocessing
import os
import pty
import re
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LAB = os.environ["SNAPDECK_LAB"]
SNAPDECK = os.path.abspath("target/release/snapdeck")
PEERS = os.path.abspath(".lab/peers/bin")
ROOT = os.path.join(LAB, "bench")
IDLE = int(os.environ.get("BENCH_IDLE", "60"))
OBJECTS = int(os.environ.get("BENCH_OBJECTS", "100000"))
ROWS, COLUMNS = 40, 120
FRAME = b"\x1b[?2026h"
# Size and interval of the chunks of a pulled object: four pulls last for minutes.
CHUNK_BYTES, CHUNK_INTERVAL = 1 << 18, 0.25
SLOW = ("big-1", "big-2", "big-3", "big-4")
SLOW_BYTES = 1 << 30


class Store(BaseHTTPRequestHandler):
    """Lists OBJECTS objects in pages of 1000, and sends the large ones slowly. Does not check credentials."""

    protocol_version = "HTTP/1.1"
    listed = multiprocessing.Event()

    def log_message(self, *_):
        pass

    def respond(self, status, body, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if "list-type" in query:
            return self.list(query)
        if url.path.strip("/") == "bench":
            return self.respond(200, b"")
        name = os.path.basename(url.path).removesuffix(".qcow2")
        if name not in SLOW or not url.path.endswith(".qcow2"):
            return self.respond(404, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>")
        span = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(span[1]) if span else 0
        last = min(int(span[2]) if span and span[2] else SLOW_BYTES - 1, SLOW_BYTES - 1)
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{SLOW_BYTES}")
        self.send_header("ETag", '"d41d8cd98f00b204e9800998ecf8427e-2"')
        self.send_header("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
        self.end_headers()
        if self.command == "HEAD":
            return None
        at = first
        try:
            while at <= last:
                size = min(CHUNK_BYTES, last + 1 - at)
                # The header of a 64 GiB qcow2 image.
                chunk = bytearray(size)
                if at == 0:
                    chunk[:104] = struct.pack(
                        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, 64 << 30, 0, 128, 3 << 16, 1 << 16, 1, 0, 0, 0, 0, 0, 4, 104
                    )
                self.wfile.write(chunk)
                at += size
                time.sleep(CHUNK_INTERVAL)
        except OSError:
            pass
        return None

    def list(self, query):
        start = int(query.get("continuation-token", "0"))
        names = [*SLOW, *(f"image-{number:06}" for number in range(OBJECTS - len(SLOW)))]
        page = names[start : start + 1000]
        body = "".join(
            f"<Contents><Key>bench/{name}.qcow2</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f'<ETag>"x"</ETag><Size>{SLOW_BYTES if name in SLOW else (start + at) * 1_000_003}</Size></Contents>'
            for at, name in enumerate(page)
        )
        more = start + 1000 < len(names)
        token = f"<NextContinuationToken>{start + 1000}</NextContinuationToken>" if more else ""
        if not more:
            self.listed.set()
        return self.respond(
            200,
            (
                f'<?xml version="1.0"?><ListBucketResult><Name>bench</Name><KeyCount>{len(page)}</KeyCount>'
                f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{body}</ListBucketResult>"
            ).encode(),
            Content_Type="application/xml",
        )


class Program:
    """A program in a pseudo terminal."""

    def __init__(self, *argv, **env):
        self.written, self.parsed, self.parts = bytearray(), 0, ""
        self.cells, self.row, self.column = [[" "] * COLUMNS for _ in range(ROWS)], 0, 0
        # Closed by exec, so that the time to fork is not measured.
        exec_pipe, child_end = os.pipe2(os.O_CLOEXEC)
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            variables = {"PATH": os.environ["PATH"], "HOME": f"{ROOT}/home", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
            os.execve(argv[0], argv, variables | env)
        os.close(child_end)
        os.read(exec_pipe, 1)
        self.started = time.perf_counter()
        os.close(exec_pipe)

    def read(self, seconds):
        """Returns what is written within a number of seconds, or nothing."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return b""
        try:
            chunk = os.read(self.terminal, 1 << 16)
        except OSError:
            chunk = b""
        self.written += chunk
        return chunk

    def drain(self, seconds):
        """Reads for a number of seconds; returns the number of bytes."""
        end, count = time.perf_counter() + seconds, 0
        while (remaining := end - time.perf_counter()) > 0:
            count += len(self.read(remaining))
        return count

    def drain_until_quiet(self, quiet=0.3):
        """Reads until nothing is written for a time."""
        end = time.perf_counter() + 30
        while self.read(quiet) and time.perf_counter() < end:
            pass

    def until(self, text, seconds=60):
        """Waits until the screen contains a text; returns the seconds since the start."""
        end = time.perf_counter() + seconds
        while text not in self.screen():
            remaining = end - time.perf_counter()
            if remaining <= 0:
                sys.exit(f"timed out waiting for {text}\n{self.screen()}")
            self.read(remaining)
        return time.perf_counter() - self.started

    def until_written(self, text):
        """Returns the seconds from the start until a text was written, for the first frame."""
        while text.encode() not in self.written and time.perf_counter() - self.started < 60:
            self.read(1)
        return time.perf_counter() - self.started

    def screen(self):
        """Returns the screen as text. Supports only the sequences of these programs: positions, clearing, and text."""
        text = self.parts + self.written[self.parsed :].decode(errors="ignore")
        self.parsed, self.parts = len(self.written), ""
        for part in re.split(r"(\x1b\[[0-9;:?<>=]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\[\]])", text):
            position = re.fullmatch(r"\x1b\[(\d*);?(\d*)([HJK])", part)
            if position and position[3] == "H":
                self.row, self.column = int(position[1] or 1) - 1, int(position[2] or 1) - 1
            elif position and position[3] == "J":
                self.cells = [[" "] * COLUMNS for _ in range(ROWS)]
            elif part.startswith("\x1b"):
                self.parts = part if re.fullmatch(r"\x1b(\[[0-9;:?<>=]*)?", part) else ""
            else:
                for letter in part:
                    if letter in "\r\n\x07":
                        self.row, self.column = self.row + (letter == "\n"), 0 if letter == "\r" else self.column
                    elif self.row < ROWS and self.column < COLUMNS:
                        self.cells[self.row][self.column] = letter
                        self.column += 1
        return "\n".join("".join(row) for row in self.cells)

    def discard_output(self):
        """Discards the bytes written so far, but not the screen."""
        self.screen()
        self.written.clear()
        self.parsed = 0

    def press(self, keys):
        os.write(self.terminal, keys.encode())

    def measure_key(self, keys):
        """Returns the seconds from a key to the first byte."""
        start = time.perf_counter()
        self.press(keys)
        if not self.read(5):
            sys.exit(f"nothing written after {keys!r}")
        return time.perf_counter() - start

    def threads(self):
        return [int(task) for task in os.listdir(f"/proc/{self.pid}/task")]

    def cpu_seconds(self, task=None):
        """Returns the processor time of one thread or all, in seconds."""
        tasks = [task] if task else self.threads()
        return sum(int(self.read_task_file(task, "schedstat").split()[0]) for task in tasks) / 1e9

    def wakeups(self):
        found = (re.search(r"^voluntary_ctxt_switches:\s+(\d+)", self.read_task_file(task, "status"), re.M) for task in self.threads())
        return sum(int(match[1]) for match in found if match)

    def read_task_file(self, task, file):
        try:
            with open(f"/proc/{self.pid}/task/{task}/{file}") as content:
                return content.read()
        except OSError:
            return "0 0 0"

    def idle(self, seconds):
        """Returns percent of a processor, wakeups per second and bytes written, for a number of seconds without a key."""
        busy, wakeups = self.cpu_seconds(), self.wakeups()
        written = self.drain(seconds)
        return (self.cpu_seconds() - busy) / seconds * 100, (self.wakeups() - wakeups) / seconds, written

    def resident_kib(self):
        return int(re.search(r"^VmRSS:\s+(\d+)", self.read_task_file(self.pid, "status"), re.M)[1])

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def open_silent_port():
    """Opens a port that accepts connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    return listener, listener.getsockname()[1]


def config(name, endpoint, hosts):
    text = (
        f'[bucket]\nname = "bench"\nprefix = "bench/"\nendpoint = "{endpoint}"\nregion = "us-east-1"\n'
        'access_key_id = "any"\nsecret_access_key = "any"\n[jobs]\nparallel = 4\n'
    )
    for host, uri in hosts.items():
        parts = {part: f"{ROOT}/{host}/{part}" for part in ("snapshots", "sandboxes", "nvram", "temp")}
        for part in parts.values():
            os.makedirs(part, exist_ok=True)
        text += (
            f'[[hosts]]\nname = "{host}"\nuri = "{uri}"\nowner = "0:0"\nsnapshots_dir = "{parts["snapshots"]}"\n'
            f'sandboxes_dir = "{parts["sandboxes"]}"\nnvram_dir = "{parts["nvram"]}"\ntemp_dir = "{parts["temp"]}"\n'
        )
    path = f"{ROOT}/{name}.toml"
    with open(path, "w") as file:
        file.write(text)
    return path


exceeded = 0


def report(name, value, limit, unit, form="8.3f"):
    global exceeded
    within_limit = value <= limit
    exceeded += not within_limit
    print(f"  {name:<58} {value:{form}} of {limit:g} {unit}  {'ok' if within_limit else 'EXCEEDED'}", flush=True)


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def first_frames(argv, text, env, runs=15):
    def measure():
        program = Program(*argv, **env)
        elapsed = program.until_written(text)
        program.end()
        return elapsed * 1000

    return [measure() for _ in range(runs)]


def latencies(program, count):
    """Returns the milliseconds from a key to the first byte, with an idle screen before each key."""
    times = []
    for number in range(count):
        times.append(program.measure_key("j" if number // 60 % 2 else "k") * 1000)
        program.drain_until_quiet(0.004)
    return times


def frame_build_times(variables):
    """Returns the milliseconds to build each frame, from the trace log."""
    console = Program(SNAPDECK, SNAPDECK_LOG="snapdeck_console=trace", **variables)
    console.until(f"Bucket {OBJECTS:,} ")
    console.press("gb")
    console.drain_until_quiet(2)
    latencies(console, 500)
    console.end()
    with open(f"{ROOT}/home/.local/state/snapdeck/snapdeck.log") as log:
        frames = re.findall(r"a frame was built in (\d+) us", log.read())
    return [int(frame) / 1000 for frame in frames[-500:]]


def latencies_under_load(program, seconds):
    """Returns the milliseconds from the first key of a chord to its menu, during 10,000 wheel events per second."""
    stop, stop_reader = threading.Event(), threading.Event()

    def send_wheel_events():
        wheel, number, start = "\x1b[<65;100;10M\x1b[<64;100;10M" * 5, 0, time.perf_counter()
        while not stop.is_set():
            os.write(program.terminal, wheel.encode())
            number += 1
            remaining = start + number / 1000 - time.perf_counter()
            if remaining > 0:
                time.sleep(remaining)

    def read():
        # A separate thread that only reads: with a full terminal buffer both sides would block in write.
        while not stop_reader.is_set():
            program.read(0.1)

    program.discard_output()
    threads = [threading.Thread(target=send_wheel_events), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start, seen = time.perf_counter(), len(program.written)
        program.press(",")
        # The menu has a word that is nowhere else on the screen.
        while program.written.find(b"reverse", seen) < 0 and time.perf_counter() - start < 5:
            time.sleep(0.0003)
        times.append((time.perf_counter() - start) * 1000)
        program.press("\x7f")
        time.sleep(0.03)
    stop.set()
    threads[0].join()
    stop_reader.set()
    threads[1].join()
    program.drain_until_quiet()
    return times


# Of one more host: descriptors, KiB of memory and percent of a processor, which must not grow faster than the hosts.
HOST_DESCRIPTORS, HOST_KIB, HOST_CPU = 2, 400, 0.05


def report_fleet(endpoint, uri):
    """Reports the console with 2, 60 and 200 hosts: they are one libvirt, with directories of their own."""
    for count in (2, 60, 200):
        hosts = {f"host-{number:03}": uri for number in range(count)}
        fleet = Program(SNAPDECK, SNAPDECK_CONFIG=config("fleet", endpoint, hosts))
        fleet.until("host-000", 60)
        fleet.press("H")
        fleet.until(f"Hosts {count}")
        end = time.perf_counter() + 120
        while fleet.screen().count("●") < min(count, 30) and time.perf_counter() < end:
            fleet.read(0.5)
        fleet.drain(15)
        times = latencies(fleet, 300)
        report(f"{count} hosts: key to first byte, p99", percentile(times, 0.99), 8, "ms")
        busy, wakeups, written = fleet.idle(min(IDLE, 30))
        descriptors, kib = len(os.listdir(f"/proc/{fleet.pid}/fd")), fleet.resident_kib()
        report("  descriptors", descriptors, 64 + HOST_DESCRIPTORS * count, "", "8d")
        report("  memory", kib, 96 * 1024 + HOST_KIB * count, "KiB", "8d")
        report("  idle processor time", busy, 0.5 + HOST_CPU * count, "%")
        print(f"    {wakeups:.1f} wakeups/s, {written / min(IDLE, 30):.0f} B/s written (no limit)", flush=True)
        fleet.end()


def report_wall(endpoint, uri):
    """Reports the Wall with 12 guests, without a bootable disk."""
    path = config("wall", endpoint, {"alpha": uri})
    with open(path, "a") as file:
        file.write('[sandbox]\naccel = "qemu"\ncpus = 1\nmemory_mib = 64\nfirmware = "bios"\nnetwork = "none"\n')
    environment = {"PATH": os.environ["PATH"], "HOME": f"{ROOT}/home", "SNAPDECK_CONFIG": path}
    base = f"{ROOT}/alpha/snapshots/empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    ids = [f"wall-{number:02}" for number in range(12)]
    try:
        for sandbox in ids:
            subprocess.run([SNAPDECK, "sandbox", "new", sandbox, "empty", "--start"], env=environment, check=True, capture_output=True)
        wall = Program(SNAPDECK, SNAPDECK_CONFIG=path)
        wall.until("wall-11")
        wall.press("W")
        wall.until("Wall 12")
        end = time.perf_counter() + 120
        while "screen…" in wall.screen() and time.perf_counter() < end:
            wall.read(0.5)
        wall.drain(5)
        busy, _, _ = wall.idle(min(IDLE, 30))
        wall.end()
    finally:
        for sandbox in ids:
            subprocess.run([SNAPDECK, "sandbox", "destroy", sandbox, "--yes"], env=environment, capture_output=True)
        os.remove(base)
    report("Wall with 12 guests", busy, 2, "% of a processor")


def main():
    store = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    # A separate process, so that its work does not disturb the measurement.
    server = multiprocessing.Process(target=store.serve_forever, daemon=True)
    server.start()
    endpoint = f"http://127.0.0.1:{store.server_address[1]}"
    listener, port = open_silent_port()
    responsive = f"qemu:///system?socket={LAB}/alpha/run/libvirt/libvirt-sock"
    dead = f"qemu+ssh://root@127.0.0.1:{port}/system"
    os.makedirs(f"{ROOT}/home")
    unreachable = {"SNAPDECK_CONFIG": config("unreachable", f"http://127.0.0.1:{port}", {"dead": dead, "missing": "qemu:///system?socket=/nowhere"})}
    reachable = {"SNAPDECK_CONFIG": config("reachable", endpoint, {"alpha": responsive, "dead": dead})}

    load = os.getloadavg()[0]
    print(f"{OBJECTS} objects; {os.cpu_count()} processors, load {load:.1f}", flush=True)
    frames = first_frames([SNAPDECK], "dead", unreachable)
    report("first useful frame, hosts unreachable, median of 15", statistics.median(frames), 20, "ms")

    console = Program(SNAPDECK, **reachable)
    end = time.perf_counter() + 180
    while not Store.listed.is_set():
        console.read(0.2)
        if time.perf_counter() > end:
            sys.exit("timed out listing the objects")
    console.drain_until_quiet(2)
    main_thread = console.pid
    console.press("gb")
    console.drain_until_quiet(1)

    times = latencies(console, 1000)
    report("key to first byte, p50", percentile(times, 0.5), 1, "ms")
    report("key to first byte, p99", percentile(times, 0.99), 8, "ms")
    shares = []
    for number in range(500):
        before = console.cpu_seconds(main_thread)
        console.measure_key("j" if number // 60 % 2 else "k")
        console.drain_until_quiet(0.004)
        shares.append((console.cpu_seconds(main_thread) - before) * 1000)
    report("building a frame of 120x40, p50", percentile(frame_build_times(reachable), 0.5), 0.5, "ms")
    print(f"    with the key, comparing and writing: {percentile(shares, 0.5):.3f} ms of processor time (no limit)", flush=True)

    times = latencies_under_load(console, 10)
    report("key to its frame under 10,000 events/s, p50", percentile(times, 0.5), 8, "ms")
    report("key to its frame under 10,000 events/s, p99", percentile(times, 0.99), 16, "ms")

    times, worst = [], (0, "")
    for word in ("image", "0099", "size>1G", "mg77", "!image-00"):
        console.press("/")
        console.drain_until_quiet(0.05)
        for letter in word:
            times.append(console.measure_key(letter) * 1000)
            worst = max(worst, (times[-1], f"{letter!r} of {word!r}"))
            console.drain_until_quiet(0.02)
        console.press("\x1b")
        console.drain_until_quiet(0.2)
    report(f"filter keystroke over {OBJECTS} objects, worst of {len(times)}: {worst[1]}", max(times), 16, "ms")
    report(f"filter keystroke over {OBJECTS} objects, median", statistics.median(times), 16, "ms")

    # All objects whose names begin with image-00, at most 10,000.
    console.press("/image-00\r")
    console.drain_until_quiet(0.3)
    console.press("\x01")
    console.until("marked")
    console.drain_until_quiet(0.3)
    console.discard_output()
    start = time.perf_counter()
    console.press("d")
    while "remove" not in console.written.decode(errors="ignore"):
        console.read(5)
    report("remove dialog of 10,000 marked rows", (time.perf_counter() - start) * 1000, 100, "ms")
    console.drain_until_quiet(1)
    times = []
    for number in range(100):
        times.append(console.measure_key("\x1b[B" if number // 50 % 2 == 0 else "\x1b[A") * 1000)
        console.drain_until_quiet(0.02)
    report("  the slowest of 100 keys in it", max(times), 16, "ms")
    # Closes the dialog, and clears the marks and the filter.
    for _ in range(3):
        console.press("\x1b")
        console.drain_until_quiet(0.5)

    report_fleet(endpoint, responsive)
    report_wall(endpoint, responsive)

    no_dead_host = {"SNAPDECK_CONFIG": config("no-dead-host", endpoint, {"alpha": responsive})}
    quiet = Program(SNAPDECK, **no_dead_host)
    quiet.until("alpha ●")
    quiet.drain(15)
    busy, wakeups, written = quiet.idle(IDLE)
    quiet.end()
    # The host strip is sampled every 5 s and drawn if it has changed. A sample is five calls of libvirt, whose client wakes
    # about thirty times for them.
    report(f"idle for {IDLE} s, all answer", busy, 0.2, "% of a processor")
    report("  wakeups", wakeups, 10, "a second")
    report("  bytes written", written / IDLE, 200, "bytes a second", "8.0f")
    # By now the retry interval for the silent host is at its maximum.
    console.drain_until_quiet(2)
    busy, wakeups, _ = console.idle(IDLE)
    report(f"idle for {IDLE} s with a host that never answers", busy, 0.2, "% of a processor")
    report("  wakeups", wakeups, 10, "a second")

    with open(f"{LAB}/alpha/libvirtd.pid") as file:
        libvirtd = int(file.read())
    os.kill(libvirtd, signal.SIGSTOP)
    try:
        times, end = [], time.perf_counter() + min(IDLE, 60)
        console.press("r")
        while time.perf_counter() < end:
            times.append(console.measure_key("j" if len(times) // 60 % 2 else "k") * 1000)
            console.drain(0.05)
    finally:
        os.kill(libvirtd, signal.SIGCONT)
    report(f"a host stops answering: the slowest of {len(times)} keys", max(times), 16, "ms")

    console.until("alpha ●", 120)
    console.press("gb/big")
    console.drain_until_quiet(0.2)
    console.press("\r\x01f")
    console.drain_until_quiet(0.5)
    console.press("y")
    console.until("4 jobs", 90)
    console.until("downloading", 90)
    console.drain(3)
    console.discard_output()
    busy = console.cpu_seconds(main_thread)
    seconds = 20
    console.drain(seconds)
    report("four transfers: the console's own share", (console.cpu_seconds(main_thread) - busy) / seconds * 100, 1, "% of a processor")
    report("  frames", console.written.count(FRAME) / seconds, 10.5, "a second")
    console.end()

    print("other programs (no limits): first frame, idle processor time, wakeups, bytes", flush=True)
    for name, argv, text in (
        ("snapdeck, hosts unreachable", [SNAPDECK], "dead"),
        ("bottom", [f"{PEERS}/btm", "--rate", "1000ms"], "CPU"),
        ("yazi", [f"{PEERS}/yazi", "/"], "etc"),
        ("television", [f"{PEERS}/tv", "files"], "files"),
    ):
        if not os.path.exists(argv[0]):
            print(f"  {name:<30} is not installed: cargo install --root .lab/peers", flush=True)
            continue
        frame = statistics.median(first_frames(argv, text, unreachable, 5))
        program = Program(*argv, **unreachable)
        program.until(text)
        program.drain(5)
        busy, wakeups, written = program.idle(min(IDLE, 20))
        program.end()
        print(f"  {name:<30} {frame:8.1f} ms {busy:7.2f} % {wakeups:7.1f} /s {written / min(IDLE, 20):9.0f} B/s", flush=True)
    listener.close()
    return 1 if exceeded else 0


os.makedirs(ROOT)
try:
    code = main()
finally:
    shutil.rmtree(ROOT, ignore_errors=True)
sys.exit(code)
