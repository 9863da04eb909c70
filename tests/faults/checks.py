"""What must be true after a try. Each function returns the violations as sentences."""

import base64
import hashlib
import json
import os
import re
import tempfile

import golden
import s3
from host import DIRECTORIES
from lab import LAB, MIB, output, processes_with, wait_until

BLOCK = 8 * MIB
# For the watchdog of a killed snapdeck, and for its processes on a host over SSH.
SETTLE_DEADLINE = 90

# Created to find the hosts that share the directory, and kept.
DIRECTORY_ID = ".snapdeck-directory-id"


def parse(version):
    """Splits "v1+vars" into the version and whether its UEFI variables belong to it."""
    return version.removesuffix("+vars"), version.endswith("+vars")


# Versions without a golden disk -> whether an image holds one.
SPECIAL = {}


def holds(path, version):
    """Returns whether an image holds the disk of a version, through its chain if it has one."""
    if version in SPECIAL:
        return SPECIAL[version](path)
    ran = output("qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw", path, golden.raw(version))
    return ran.code == 0


def alternatives(version):
    """Returns the versions of a place: one, or several where either operator may win."""
    return set(version) if isinstance(version, tuple) else {version}


def held(path, versions):
    """Returns those of `versions` whose disk an image has: its UEFI variables have to be of the same one."""
    return {version for version in versions if holds(path, parse(version)[0])} or versions


def image_violations(path, versions, what):
    """Checks an image with a final name: intact, standalone or not, and the disk of one of `versions`."""
    ran = output("qemu-img", "check", "-U", "-f", "qcow2", path)
    if ran.code not in (0, 3):
        return [f"{what} is not a valid image: {ran}"]
    if not any(holds(path, parse(version)[0]) for version in versions):
        others = [version for version in golden.VERSIONS if holds(path, version)]
        return [f"{what} has the disk of {others or 'no version'}, not of {sorted(versions)}"]
    return []


def standalone_violations(path, what):
    info = json.loads(output("qemu-img", "info", "-U", "--output=json", "-f", "qcow2", path).stdout or "{}")
    return [f"{what} has a backing file"] if "backing-filename" in info else []


def digest_violations(blocks, path, what):
    """Compares the digests of a manifest with a file."""
    expected = base64.b64decode(blocks)
    with open(path, "rb") as file:
        found = b"".join(hashlib.sha256(block).digest() for block in iter(lambda: file.read(BLOCK), b""))
    return [] if expected == found else [f"the manifest of {what} does not have its digests"]


def variables_violations(found, versions, what):
    """`found` is the content of NAME_VARS.fd, or None."""
    expected = set()
    for version in versions:
        name, has_variables = parse(version)
        expected.add(golden.sha256(golden.variables(name)) if has_variables else None)
    digest = found if found is None else hashlib.sha256(found).hexdigest()
    return [] if digest in expected else [f"the UEFI variables of {what} do not belong to {sorted(versions)}: {digest}"]


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def object_variables(world, name):
    """Returns the UEFI variables that an object names in its metadata (docs/safety.md), else those beside it."""
    headers = s3.request("HEAD", world.key(f"{name}.qcow2"))[1]
    digest = headers.get("x-amz-meta-snapdeck-variables")
    if digest is None:
        found = s3.get(world.key(f"{name}_VARS.fd"))
    else:
        # "none" or a SHA-256 in hexadecimal.
        found = s3.get(world.key(f"{name}_VARS.{digest[:16]}.fd"))
    return found and found[1]


def parse_manifest(body):
    try:
        manifest = json.loads(body)
        return manifest if isinstance(manifest, dict) and "blocks" in manifest else None
    except ValueError:
        return None


def object_violations(world, name, versions, is_final, is_proven):
    """`versions` has None if there may be no such object."""
    what = f"object {name}"
    found = s3.get(world.key(f"{name}.qcow2"))
    present = {version for version in versions if version}
    variables = object_variables(world, name)
    if found is None:
        return [] if None in versions else [f"{what} is missing"]
    if not present:
        return [f"{what} exists"]
    etag, body = found
    with tempfile.NamedTemporaryFile(dir=LAB, suffix=".qcow2") as file:
        file.write(body)
        file.flush()
        problems = image_violations(file.name, present, what) + standalone_violations(file.name, what)
        pairs = held(file.name, present)
        manifest = parse_manifest((s3.get(world.key(f"{name}.json")) or (None, b""))[1])
        is_trusted = manifest and str(manifest.get("etag")).strip('"') == etag and manifest.get("sizeBytes") == len(body)
        if is_trusted:
            problems += digest_violations(manifest["blocks"], file.name, what)
        elif is_final and is_proven:
            problems.append(f"{what} has no manifest of its own: {manifest and manifest.get('etag')}, {etag}")
    if is_final:
        problems += variables_violations(variables, pairs, what)
    return problems


def snapshot_violations(host, name, versions, is_final, is_proven):
    what, path = f"snapshot {name} on host {host.name}", host.snapshot(name)
    present = {version for version in versions if version}
    variables = read(host.path("snapshots", f"{name}_VARS.fd"))
    if not os.path.exists(path):
        problems = [] if None in versions else [f"{what} is missing"]
        if is_final and variables is not None:
            problems.append(f"{what} is absent, its UEFI variables are there")
        return problems
    if not present:
        return [f"{what} exists"]
    problems = image_violations(path, present, what) + standalone_violations(path, what)
    stat = os.stat(path)
    stamp = {"inode": stat.st_ino, "modifiedNs": stat.st_mtime_ns, "sizeBytes": stat.st_size}
    manifest = parse_manifest(read(host.path("snapshots", f"{name}.json")) or b"")
    recorded = (manifest or {}).get("file") or {}
    if manifest and all(recorded.get(key) == value for key, value in stamp.items()):
        problems += digest_violations(manifest["blocks"], path, what)
    elif is_final and is_proven:
        problems.append(f"{what} has no manifest of its own: {recorded}, {stamp}")
    if is_final:
        problems += variables_violations(variables, held(path, present), what)
    return problems


def sandbox_violations(host, sandbox, versions, is_final):
    what, disk = f"sandbox {sandbox} on host {host.name}", host.disk(sandbox)
    state = host.state(sandbox)
    present = {version for version in versions if version}
    if state is None:
        problems = [] if None in versions else [f"{what} is not defined"]
        for file in (disk, host.nvram(sandbox)):
            if is_final and os.path.exists(file):
                problems.append(f"{what} is not defined, {file} is there")
        return problems
    if not present:
        return [f"{what} exists"] if is_final or None not in versions else []
    if not os.path.exists(disk):
        return [f"{what} is defined without its disk"]
    if present & SPECIAL.keys():
        # Its guest writes.
        return []
    return image_violations(disk, present, what) + variables_violations(read(host.nvram(sandbox)), held(disk, present), what)


def place_violations(world, before, after, is_final, proven):
    """Checks each place: ("bucket", NAME), ("host", HOST, NAME) or ("sandbox", HOST, SHORT ID)."""
    problems = []
    hosts = {host.name: host for host in world.hosts}
    for place in {**before, **after}:
        versions = alternatives(after[place]) | (set() if is_final else alternatives(before[place]))
        if place[0] == "bucket":
            problems += object_violations(world, place[1], versions, is_final, place in proven)
        elif place[0] == "host":
            problems += snapshot_violations(hosts[place[1]], place[2], versions, is_final, place in proven)
        else:
            problems += sandbox_violations(hosts[place[1]], world.id(place[2]), versions, is_final)
    return problems


def guest_violations(world, guests):
    """`guests` is {(HOST, SHORT ID): state}. Waits for the watchdog."""
    problems = []
    for (host, short), expected in guests.items():
        host = next(other for other in world.hosts if other.name == host)
        sandbox = world.id(short)
        if not wait_until(lambda: host.state(sandbox) == expected, SETTLE_DEADLINE):
            problems.append(f"guest {sandbox} is {host.try_virsh('domstate', '--reason', sandbox)}, not {expected}")
        if not wait_until(lambda: host.try_virsh("backup-dumpxml", sandbox).code != 0, SETTLE_DEADLINE):
            problems.append(f"a backup job of {sandbox} is still running")
    return problems


def leftover_violations(world, after, documented=False):
    """Checks that nothing is there but what belongs to `after` and what was planted.

    With `documented` also what a kill may leave until its name is used again (unlocked lock files; manifest and variables
    without an image, which are ignored) and what `prune --leftovers` removes (uploads, temporary directories on hosts)."""
    problems = []
    objects, hosts = set(world.planted.objects), {host.name: host for host in world.hosts}
    files = set(world.planted.files)
    # Manifests of base images.
    files |= {path.removesuffix(".qcow2") + ".json" for path in files if path.endswith("/base.qcow2")}
    for place, version in after.items():
        if version is None:
            if place[0] == "bucket" and documented:
                objects |= {world.key(f"{place[1]}.json"), *s3.keys(world.key(f"{place[1]}_VARS"))}
            if place[0] == "host" and documented:
                files |= {hosts[place[1]].path("snapshots", f"{place[2]}{end}") for end in (".json", "_VARS.fd")}
            continue
        if place[0] == "bucket":
            objects |= {world.key(f"{place[1]}{end}") for end in (".qcow2", ".json")}
            # The object decides which one counts.
            objects |= set(s3.keys(world.key(f"{place[1]}_VARS")))
        elif place[0] == "host":
            files |= {hosts[place[1]].path("snapshots", f"{place[2]}{end}") for end in (".qcow2", ".json", "_VARS.fd")}
        else:
            files |= {hosts[place[1]].disk(world.id(place[2])), hosts[place[1]].nvram(world.id(place[2]))}
    for host in world.hosts:
        for directory in DIRECTORIES:
            root = host.path(directory)
            # The files of others have directories that are not ours either.
            unknown = sorted(set(walk(root)) - files - {f"{root}/{DIRECTORY_ID}"})
            if documented:
                allowed = re.compile(re.escape(host.dir) + r"/(temp/snapdeck-.*|\w+/\..*\.lock)")
                unknown = [path for path in unknown if not allowed.fullmatch(path)]
            problems += [f"{path} is left on host {host.name}" for path in unknown]
    problems += [f"temporary file {path} is left" for path in walk(world.temp)]
    problems += [f"object {key} is left" for key in s3.keys(f"{world.tag}/") if key not in objects]
    if not documented:
        left = [upload for upload in s3.uploads(f"{world.tag}/") if upload not in world.planted.uploads]
        problems += [f"upload {upload} is left" for upload in left]
    return problems


def walk(root):
    """Returns all files below a directory, and its empty directories."""
    for directory, directories, files in os.walk(root):
        if directory != root and not directories and not files:
            yield directory
        yield from (f"{directory}/{name}" for name in files)


def strays(world):
    """Returns the processes of snapdeck and of its programs on the hosts that still run; not guests, not sshd. A master
    connection of ssh ends by itself within a minute (ControlPersist): see `lingering`."""
    return [process for process in processes_with(world.dir) if not is_expected(process[1]) and "/lab/host.sh " not in process[2]]


def is_expected(name):
    return name.startswith(("qemu-system", "swtpm", "libvirtd", "sshd", "host.sh", "sleep", "python", "ssh"))


def process_violations(world):
    if wait_until(lambda: not strays(world), SETTLE_DEADLINE, interval=0.2):
        return []
    return [f"process {pid} ({name}) still runs: {command}" for pid, name, command in strays(world)]


def lingering():
    """Returns the connections of ssh that do not end by themselves, after all rows."""
    connections = lambda: [process for process in processes_with(f"{LAB}/hosts/") if process[1] == "ssh"]
    wait_until(lambda: not connections(), SETTLE_DEADLINE, interval=0.5)
    return connections()
