"""Golden images: what a disk must hold, written without QEMU and without snapdeck."""

import hashlib
import os
import random

from lab import LAB, MIB, run

ROOT = f"{LAB}/golden"
DISK_MIB = 48
# Offset and length in MiB of the random bytes of a version, and of the overlay of those that are based on "base".
BASE_DATA = (4, 20)
OVERLAYS = {"v1": (20, 6), "v2": (22, 7)}
VERSIONS = ("base", *OVERLAYS)


def raw(version):
    return f"{ROOT}/{version}.raw"


def overlay_data(version):
    return f"{ROOT}/{version}.data"


def variables(version):
    """Returns the path of the UEFI variables that belong to a version."""
    return f"{ROOT}/{version}.vars"


def create():
    """Creates the images, the same ones in each run."""
    if os.path.exists(raw("v2")):
        return
    os.makedirs(ROOT, exist_ok=True)
    noise = random.Random(20)
    base = noise.randbytes(BASE_DATA[1] * MIB)
    for version in VERSIONS:
        with open(raw(version), "wb") as file:
            file.truncate(DISK_MIB * MIB)
            file.seek(BASE_DATA[0] * MIB)
            file.write(base)
            if version in OVERLAYS:
                start, length = OVERLAYS[version]
                data = noise.randbytes(length * MIB)
                file.seek(start * MIB)
                file.write(data)
                with open(overlay_data(version), "wb") as own:
                    own.write(data)
        with open(variables(version), "wb") as file:
            file.write(noise.randbytes(64 << 10))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw("base"), f"{ROOT}/base.qcow2")


def make_overlay(path, base, version):
    """Creates the overlay of a version at `path`, based on the image `base`."""
    if os.path.exists(path):
        os.remove(path)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path)
    start, length = OVERLAYS[version]
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {overlay_data(version)} {start}M {length}M", path)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
