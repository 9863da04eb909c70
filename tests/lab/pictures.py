#!/usr/bin/env python3
"""Creates pictures and a recording of the console from the running demo: assets/pictures/*.svg, assets/demo.cast.

Run by `make pictures`; SD names another binary. The pictures are taken in tmux; the recording (asciinema format, version 2)
is the output of the program.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from xml.sax.saxutils import escape

SNAPDECK = os.path.abspath(os.environ.get("SD", "target/release/snapdeck"))
OUT = os.path.abspath("assets")
COLUMNS, ROWS = 120, 40
CELL_WIDTH, CELL_HEIGHT = 8.4, 18
TMUX = ("tmux", "-L", f"snapdeck-pictures-{os.getpid()}", "-f", "/dev/null")
ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", "COLORTERM": "truecolor"}
DEADLINE = 240
# The 16 colours of xterm, less saturated.
BASIC = "#1d1f21 #cc6666 #8fbf6f #e0b050 #81a2be #b294bb #6fc3c0 #c5c8c6 #666 #d57878 #a3d080 #f0c674 #9fc0dd #c9a8d0 #8fdad7 #fff".split()
DARK, LIGHT = ("#15171a", "#c9ccd1"), ("#fdfdf8", "#24262a")


def tmux(*argv):
    return subprocess.run((*TMUX, *argv), env=ENV | {"TERM": "xterm-256color"}, check=True, capture_output=True, text=True).stdout


def screen():
    return tmux("capture-pane", "-p", "-e", "-N")


def until(text):
    until_match(re.escape(text))


def until_match(pattern):
    end = time.monotonic() + DEADLINE
    while not re.search(pattern, re.sub(r"\x1b\[[0-9;:]*m", "", screen())):
        if time.monotonic() > end:
            sys.exit(f"timed out waiting for: {pattern}\n{screen()}")
        time.sleep(0.05)


def until_uploading():
    """Waits until at least a tenth is uploaded."""
    until_match(r"uploading .*[1-9][0-9] % .* left")


def color(codes):
    """Returns the colour after a 38 or 48, and the number of codes consumed."""
    if codes[0] == 2:
        return "#%02x%02x%02x" % tuple(codes[1:4]), 4
    index = codes[1]
    if index < 16:
        return BASIC[index], 2
    if index >= 232:
        return "#" + "%02x" % (8 + (index - 232) * 10) * 3, 2
    levels = [0, 95, 135, 175, 215, 255]
    index -= 16
    return "#%02x%02x%02x" % (levels[index // 36], levels[index // 6 % 6], levels[index % 6]), 2


def cells(line, style, paper, ink):
    """Yields the runs of one style in a line: (text, columns, foreground, background, bold, dim, underlined).

    `style` is that at the end of the line before: tmux writes only what changes.
    """
    for part in re.split(r"(\x1b\[[0-9;:]*m)", line):
        match = re.fullmatch(r"\x1b\[([0-9;:]*)m", part)
        if not match:
            if part:
                front, back = style.get("front", ink), style.get("back", paper)
                if "reverse" in style:
                    front, back = back, front
                width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in part)
                yield part, width, front, back, *("bold" in style, "dim" in style, "underlined" in style)
            continue
        codes = [int(code or 0) for code in re.split("[;:]", match[1])]
        while codes:
            code = codes.pop(0)
            flags = {1: "bold", 2: "dim", 4: "underlined", 7: "reverse"}
            if code == 0:
                style.clear()
            elif code in flags:
                style[flags[code]] = True
            elif code in (22, 24, 27):
                for flag in {22: ("bold", "dim"), 24: ("underlined",), 27: ("reverse",)}[code]:
                    style.pop(flag, None)
            elif code in (38, 48):
                found, used = color(codes)
                style["front" if code == 38 else "back"] = found
                codes = codes[used:]
            elif code in (39, 49):
                style.pop("front" if code == 39 else "back", None)
            elif 30 <= code <= 37 or 90 <= code <= 97:
                style["front"] = BASIC[code - 30 if code < 90 else code - 82]
            elif 40 <= code <= 47 or 100 <= code <= 107:
                style["back"] = BASIC[code - 40 if code < 100 else code - 92]


def blocks(text, x, y):
    """Returns the block elements of a run as an SVG path: few fonts have them as wide as letters."""
    path = []
    for c in text:
        left, top, width, height = 0, 0, CELL_WIDTH, CELL_HEIGHT
        if "▁" <= c <= "█":
            height = CELL_HEIGHT * (ord(c) - 0x2580) / 8
            top = CELL_HEIGHT - height
        elif "▉" <= c <= "▏":
            width = CELL_WIDTH * (0x2590 - ord(c)) / 8
        elif c == "▀":
            height = CELL_HEIGHT / 2
        else:
            height = 0
        if height:
            path.append(f"M{x + left:.1f} {y + top:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z")
        x += CELL_WIDTH
    return "".join(path)


def dots(text, x, y):
    """Returns the braille dots and shades of a run as an SVG path of dashed lines, one for neighbours in a row."""
    rows = (1, 2, 4, 64), (8, 16, 32, 128)
    path = []
    for row in range(4):
        start = None
        for column in range(len(text) * 2 + 1):
            c = text[column // 2] if column // 2 < len(text) else " "
            is_dot = c == "░" and column % 2 == row % 2 or "⠀" < c <= "⣿" and ord(c) & rows[column % 2][row]
            if start is None and is_dot:
                start = column
            elif start is not None and not is_dot:
                left = x + (start + 0.5) * CELL_WIDTH / 2 - 1
                path.append(f"M{left:.1f} {y + (row + 0.5) * CELL_HEIGHT / 4:.1f}h{(column - start - 1) * CELL_WIDTH / 2 + 2:.1f}")
                start = None
    return "".join(path)


def picture(name, title, scheme=DARK):
    paper, ink = scheme
    width, height = COLUMNS * CELL_WIDTH + 24, ROWS * CELL_HEIGHT + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{paper}"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">',
    ]
    style = {}
    for row, line in enumerate(screen().splitlines()[:ROWS]):
        column = 0
        for text, wide, front, back, bold, dim, underlined in cells(line, style, paper, ink):
            x, y, length = 12 + column * CELL_WIDTH, 12 + row * CELL_HEIGHT, wide * CELL_WIDTH
            column += wide
            if back != paper:
                lines.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{CELL_HEIGHT}" fill="{back}"/>')
            if not text.strip():
                continue
            opacity = ' opacity="0.6"' * dim
            for path, paint in (
                (blocks(text, x, y), f'fill="{front}"'),
                (dots(text, x, y), f'stroke="{front}" stroke-width="2" stroke-dasharray="2 {CELL_WIDTH / 2 - 2:.1f}"'),
            ):
                if path:
                    lines.append(f'<path d="{path}" {paint}{opacity}/>')
            text = re.sub("[▀-▏░⠀-⣿]", " ", text)
            if not text.strip():
                continue
            attributes = ' font-weight="bold"' * bold + ' opacity="0.6"' * dim + ' text-decoration="underline"' * underlined
            lines.append(f'<text x="{x:.1f}" y="{y + 14}" textLength="{length:.1f}" fill="{front}"{attributes}>{escape(text)}</text>')
    lines += ["</g>", "</svg>", ""]
    os.makedirs(f"{OUT}/pictures", exist_ok=True)
    with open(f"{OUT}/pictures/{name}.svg", "w") as file:
        file.write("\n".join(lines))
    print(f"assets/pictures/{name}.svg")


def press(*keys):
    tmux("send-keys", *keys)


def until_loaded():
    """Waits for the metrics and the screens of the guests."""
    end = time.monotonic() + DEADLINE
    while any(text in screen() for text in ("screen…", "measuring…")) and time.monotonic() < end:
        time.sleep(0.05)


def pictures():
    command = f"{SNAPDECK} demo"
    tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), command)
    until("r-tools-v1")
    until("running")
    # The charts have some samples, and the screen of the guest is there when it is selected again.
    press("G")
    until("VNC")
    until_loaded()
    until(" 30 s ago ")
    press("g", "g", "p")
    until("Name:")
    press("web-v1")
    until("uploads to")
    picture("push", "The push dialog says where the snapshot goes before it does")
    press("Enter", "G")
    until("QEMU memory")
    until_loaded()
    until_uploading()
    picture("lists", "Sandboxes, snapshots and the bucket side by side, and a push at work")
    until("✓ push build-02")
    # The chart of transfers has both directions.
    press("g", "b", "G", "f")
    until("y pull")
    press("y")
    until("✓ pull")
    press("g", "s", "g", "g", "j", "p")
    until("Name:")
    press("test-v1")
    until("uploads to")
    press("Enter", "J")
    until("● push")
    until_uploading()
    picture("jobs", "The jobs of this and earlier runs, and the rates of all transfers")
    press("J")
    until("✓ push test-03")
    press("m")
    until("Locations")
    picture("matrix", "Where each snapshot is")
    press("m", "W")
    until("Wall")
    until_loaded()
    picture("wall", "The screens of all running guests")
    press("W", ":", "sort")
    until("select")
    picture("palette", "Any action by a few letters of its name")
    press("Escape", "q")


def recording():
    """Presses keys slowly and records the output with its times."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.execve(SNAPDECK, [SNAPDECK, "demo"], ENV | {"TERM": "xterm-256color"})
    events, text, start = [], "", time.monotonic()

    def read(seconds):
        nonlocal text
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            if select.select([terminal], [], [], remaining)[0]:
                try:
                    chunk = os.read(terminal, 1 << 16).decode(errors="replace")
                except OSError:
                    return
                text += chunk
                events.append((time.monotonic() - start, "o", chunk))

    def until_written(expected):
        end = time.monotonic() + DEADLINE
        while expected not in text:
            if time.monotonic() > end:
                sys.exit(f"timed out waiting for: {expected}")
            read(0.05)

    until_written("r-tools-v1")
    read(1.5)
    for key in ("p", *"web-v1", "\r"):
        os.write(terminal, key.encode())
        read(0.35)
    until_written("✓")
    read(2)
    for keys, wait in (("m", 2.5), ("m", 1), ("/", 0.5), ("w", 0.4), ("e", 0.4), ("b", 1.5), ("\x1b", 1), ("?", 2), ("v", 0.4), ("n", 0.4), ("c", 2), ("\x1b", 1), ("q", 2)):
        os.write(terminal, keys.encode())
        read(wait)
    os.close(terminal)
    os.waitpid(pid, 0)
    # Shortens pauses while the demo or QEMU starts.
    removed, before, shortened = 0.0, 0.0, []
    for at, kind, chunk in events:
        removed += max(0.0, at - before - 2)
        before = at
        shortened.append([round(at - removed, 3), kind, chunk])
    with open(f"{OUT}/demo.cast", "w") as file:
        head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "snapdeck demo", "env": {"TERM": "xterm-256color"}}
        for line in (head, *shortened):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print("assets/demo.cast")


try:
    pictures()
finally:
    subprocess.run((*TMUX, "kill-server"), env=ENV, capture_output=True)
recording()
