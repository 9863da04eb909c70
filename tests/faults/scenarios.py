"""Commands that are disturbed, with the state before and after each. A place is ("bucket", NAME), ("host", HOST, NAME) or
("sandbox", HOST, SHORT ID); its version is one of golden.VERSIONS, with "+vars" if UEFI variables belong to it."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time

import checks
import golden
import s3
from lab import HarnessError

SANDBOX = ("sandbox", "alpha", "a")


class Scenario:
    name = ""
    # Hosts of its world.
    hosts = ("alpha",)
    before, after = {}, {}
    # Places that have a manifest in the end.
    proven = ()
    guests = {}
    # Exit codes of the same command when it was done already.
    done_codes = ()
    # More keys of [[hosts]], and the firmware of new sandboxes.
    settings, firmware = "", "bios"

    def prepare(self, world):
        """Brings the world into the state `before`, whatever it is in."""

    def argv(self, world):
        raise NotImplementedError

    def finish(self, world):
        """Runs the command again; returns its output if it failed."""
        ran = world.snapdeck(*self.argv(world))
        return None if ran.code == 0 or ran.code in self.done_codes else ran

    def extra_violations(self, world):
        """Checks what only this command can violate, after the fault."""
        return []


def ensure_base(world):
    """Puts the golden image on the host, from then on unchanged."""
    path = world.host.snapshot("base")
    if path not in world.planted.files:
        world.host.put_snapshot("base")
        world.planted.remember(path)


def ensure_object(world, name, version):
    """Pushes an object, unless it has this version already."""
    name_, has_variables = version.removesuffix("+vars"), version.endswith("+vars")
    cached = f"{world.dir}/{name}.{version}.pushed"
    tag = s3.request("HEAD", world.key(f"{name}.qcow2"))[1].get("etag")
    if tag and os.path.exists(cached) and open(cached).read() == tag:
        return
    ensure_base(world)
    world.remove_object(name)
    world.make_sandbox("maker", name_, variables=has_variables)
    ran = world.snapdeck("push", world.id("maker"), name, "--host", "alpha", operator="other")
    world.remove_sandbox("maker")
    if ran.code != 0:
        raise HarnessError(str(ran))
    with open(cached, "w") as file:
        file.write(s3.request("HEAD", world.key(f"{name}.qcow2"))[1]["etag"])


def manifest(name, path, **more):
    """Returns the manifest of an image."""
    with open(path, "rb") as file:
        body = file.read()
    starts = range(0, len(body), checks.BLOCK)
    blocks = b"".join(hashlib.sha256(body[start : start + checks.BLOCK]).digest() for start in starts)
    return {"format": 1, "name": name, "sizeBytes": len(body), "blocks": base64.b64encode(blocks).decode(), **more}


def put_object(world, name, path, **more):
    """Uploads an object with its manifest, which names its tag."""
    with open(path, "rb") as file:
        tag = s3.put(world.key(f"{name}.qcow2"), file.read())
    s3.put(world.key(f"{name}.json"), json.dumps(manifest(name, path, etag=f'"{tag}"', **more)).encode())


class Push(Scenario):
    name = "push"
    before = {("bucket", "new"): None, SANDBOX: "v1"}
    after = {("bucket", "new"): "v1", SANDBOX: "v1"}
    proven = (("bucket", "new"),)

    def prepare(self, world):
        ensure_base(world)
        world.remove_object("new")
        if world.host.state(world.id("a")) is None:
            world.make_sandbox("a", "v1")

    def argv(self, world):
        return ("push", world.id("a"), "new", "--host", "alpha")

    def finish(self, world):
        ran = world.snapdeck(*self.argv(world))
        if ran.code == 4:
            # Killed after the object was complete. One whose manifest is missing is replaced.
            if s3.get(world.key("new.json")):
                return None
            ran = world.snapdeck(*self.argv(world), "--overwrite")
        return None if ran.code == 0 else ran


class PushCopied(Push):
    """The base is in the bucket: the store copies its bytes."""

    name = "push, base in the bucket"
    before = {**Push.before, ("bucket", "base"): "base"}
    after = {**Push.after, ("bucket", "base"): "base"}

    def prepare(self, world):
        host, name = world.host, f"{golden.ROOT}/base.qcow2"
        if not s3.get(world.key("base.json")):
            put_object(world, "base", name)
            host.remove_snapshot("base")
            # Its manifest on the host proves that it is the object.
            ran = world.snapdeck("pull", "base", "--host", "alpha", operator="other")
            if ran.code != 0:
                raise HarnessError(str(ran))
            world.planted.remember(host.snapshot("base"))
        super().prepare(world)


class PushCompact(Push):
    name = "push --compact"

    def argv(self, world):
        return (*super().argv(world), "--compact")


class PushOverwrite(Scenario):
    name = "push --overwrite"
    hosts = ("alpha", "beta")
    before = {("bucket", "new"): "v1+vars", SANDBOX: "v2+vars"}
    after = {("bucket", "new"): "v2+vars", SANDBOX: "v2+vars"}
    proven = (("bucket", "new"),)

    def prepare(self, world):
        ensure_base(world)
        ensure_object(world, "new", "v1+vars")
        if world.host.state(world.id("a")) is None:
            world.make_sandbox("a", "v2", variables=True)

    def argv(self, world):
        return ("push", world.id("a"), "new", "--overwrite", "--host", "alpha")

    def extra_violations(self, world):
        """Pulls what is there to another host: it is refused, or is one version with its own variables."""
        beta = world.hosts[1]
        ran = world.snapdeck("pull", "new", "--host", "beta", operator="other")
        problems = []
        if ran.code == 0:
            variables = golden.sha256(beta.path("snapshots", "new_VARS.fd"))
            pairs = {version: golden.sha256(golden.variables(version)) for version in ("v1", "v2")}
            found = [version for version in pairs if checks.holds(beta.snapshot("new"), version)]
            if len(found) != 1 or pairs[found[0]] != variables:
                problems = [f"a reader got the disk of {found} with other UEFI variables, exit code 0"]
        elif os.path.exists(beta.snapshot("new")):
            problems = [f"a refused pull left a final name: {ran}"]
        for path in pull_directories(beta):
            shutil.rmtree(path)
        for entry in os.scandir(beta.path("snapshots")):
            if entry.is_file() and entry.path not in world.planted.files:
                os.remove(entry.path)
        return problems


def pull_directories(host):
    """Returns the directories of interrupted pulls of `new`."""
    paths = (host.path("snapshots", f".new{end}.pull") for end in (".qcow2", "_VARS.fd"))
    return [path for path in paths if os.path.isdir(path)]


class Pull(Scenario):
    name = "pull"
    before = {("bucket", "new"): "v1+vars", ("host", "alpha", "new"): None}
    after = {("bucket", "new"): "v1+vars", ("host", "alpha", "new"): "v1+vars"}
    proven = (("host", "alpha", "new"), ("bucket", "new"))
    has_parent = False

    def prepare(self, world):
        ensure_object(world, "new", self.after[("bucket", "new")])
        base = world.host.snapshot("base")
        if not self.has_parent and os.path.exists(base):
            world.planted.forget(base)
            world.host.remove_snapshot("base")
        if self.has_parent:
            ensure_base(world)
        world.host.remove_snapshot("new")
        for path in pull_directories(world.host):
            shutil.rmtree(path)

    def argv(self, world):
        return ("pull", "new", "--host", "alpha")


class PullDelta(Pull):
    name = "pull, parent on the host"
    has_parent = True


class PullResumed(Pull):
    name = "pull, resumed"
    first_operator = "other"

    def prepare(self, world):
        super().prepare(world)
        partial = world.host.path("snapshots", ".new.qcow2.pull/partial")
        child = world.start("pull", "new", "--host", "alpha", operator=self.first_operator)
        end = time.monotonic() + 60
        while child.poll() is None and not (os.path.exists(partial) and os.stat(partial).st_blocks > 0):
            if time.monotonic() > end:
                break
            time.sleep(0.002)
        child.kill()
        child.communicate()


class PullOverwrite(Pull):
    name = "pull --overwrite"
    firmware = "uefi"
    before = {("bucket", "new"): "v2+vars", ("host", "alpha", "new"): "v1+vars"}
    after = {("bucket", "new"): "v2+vars", ("host", "alpha", "new"): "v2+vars"}
    has_parent = True

    def prepare(self, world):
        super().prepare(world)
        shutil.copyfile(old_image(world), world.host.snapshot("new"))
        shutil.copyfile(golden.variables("v1"), world.host.path("snapshots", "new_VARS.fd"))

    def argv(self, world):
        return ("pull", "new", "--overwrite", "--host", "alpha")

    def extra_violations(self, world):
        """Creates a sandbox from what is there: it is refused, or has the UEFI variables of its disk."""
        host, sandbox = world.host, world.id("r")
        ran = world.snapdeck("sandbox", "new", sandbox, "new", "--host", "alpha", operator="other")
        problems = []
        if ran.code == 0:
            variables = checks.read(host.nvram(sandbox))
            found = checks.held(host.disk(sandbox), {"v1+vars", "v2+vars"})
            if checks.variables_violations(variables, found, "") or len(found) != 1:
                problems = [f"a new sandbox got the disk of {sorted(found)} with other UEFI variables, exit code 0"]
        world.remove_sandbox("r")
        return problems


def old_image(world):
    """Returns a standalone image of v1."""
    path = f"{golden.ROOT}/v1.qcow2"
    if not os.path.exists(path):
        made = f"{path}.{world.tag}"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", golden.raw("v1"), made], check=True)
        os.rename(made, path)
    return path


class Create(Scenario):
    name = "create, guest running"
    state = "running"
    before = {("bucket", "new"): None, SANDBOX: "v1"}
    after = {("bucket", "new"): "v1", SANDBOX: "v1"}
    proven = (("bucket", "new"),)
    guests = {("alpha", "a"): "running"}

    def prepare(self, world):
        ensure_base(world)
        world.remove_object("new")
        host, sandbox = world.host, world.id("a")
        if host.state(sandbox) not in ("running", "paused"):
            world.make_sandbox("a", "v1", running=True)
        verb = "resume" if self.state == "running" else "suspend"
        if host.state(sandbox) != self.state:
            host.virsh(verb, sandbox)

    def argv(self, world):
        return ("create", world.id("a"), "new", "--host", "alpha")

    finish = Push.finish


class CreateCopy(Create):
    """The overlay is copied while the guest is paused."""

    name = "create, running = copy"
    settings = 'running = "copy"\n'


class CreateConvert(Create):
    name = "create, running = convert"
    settings = 'running = "convert"\n'


class CreatePaused(Create):
    """The operator has paused the guest: it stays paused."""

    name = "create, guest paused"
    state = "paused"
    guests = {("alpha", "a"): "paused"}
