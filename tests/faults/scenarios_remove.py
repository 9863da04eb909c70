"""Commands that remove, and those that create and destroy sandboxes; see scenarios.py."""

import os
import shutil
import time

import checks
import golden
import s3
from lab import HarnessError, wait_until
from scenarios import SANDBOX, PullResumed, Scenario, ensure_base, old_image, pull_directories, put_object

DAY = 86400


class RemoveLocal(Scenario):
    name = "remove --local"
    before = {("host", "alpha", "new"): "v1+vars", SANDBOX: "v1"}
    after = {("host", "alpha", "new"): None, SANDBOX: "v1"}
    done_codes = (3,)

    def prepare(self, world):
        ensure_base(world)
        shutil.copyfile(old_image(world), world.host.snapshot("new"))
        shutil.copyfile(golden.variables("v1"), world.host.path("snapshots", "new_VARS.fd"))
        if world.host.state(world.id("a")) is None:
            world.make_sandbox("a", "v1")

    def argv(self, world):
        return ("remove", "new", "--local", "--host", "alpha")


class RemoveBucket(Scenario):
    name = "remove --bucket"
    before = {("bucket", "new"): "v1+vars", ("bucket", "kept"): "v1"}
    after = {("bucket", "new"): None, ("bucket", "kept"): "v1"}
    done_codes = (3,)

    def prepare(self, world):
        for name in ("new", "kept"):
            if not s3.get(world.key(f"{name}.qcow2")):
                put_object(world, name, old_image(world))
        with open(golden.variables("v1"), "rb") as file:
            s3.put(world.key("new_VARS.fd"), file.read())

    def argv(self, world):
        return ("remove", "new", "--bucket", "--host", "alpha")


class SandboxNew(Scenario):
    name = "sandbox new"
    before = {("sandbox", "alpha", "n"): None}
    after = {("sandbox", "alpha", "n"): "base+vars"}
    firmware = "uefi"

    def prepare(self, world):
        ensure_base(world)
        variables = world.host.path("snapshots", "base_VARS.fd")
        if not os.path.exists(variables):
            shutil.copyfile(golden.variables("base"), variables)
            world.planted.remember(variables)
        world.remove_sandbox("n")

    def argv(self, world):
        return ("sandbox", "new", world.id("n"), "base", "--host", "alpha")

    def finish(self, world):
        ran = world.snapdeck(*self.argv(world))
        if ran.code == 4 and world.host.state(world.id("n")) is None:
            # The error names the way: leftovers are removed first.
            destroyed = world.snapdeck("sandbox", "destroy", world.id("n"), "--yes", "--host", "alpha")
            if destroyed.code != 0:
                return destroyed
            ran = world.snapdeck(*self.argv(world))
        return None if ran.code in (0, 4) else ran


class SandboxNewStarted(SandboxNew):
    name = "sandbox new --start"
    before = {("sandbox", "alpha", "n"): None}
    after = {("sandbox", "alpha", "n"): "base"}
    firmware = "bios"

    def argv(self, world):
        return (*super().argv(world), "--start")

    def finish(self, world):
        # libvirt continues the start, in which the guest is paused for a moment.
        wait_until(lambda: world.host.state(world.id("n")) != "paused", checks.SETTLE_DEADLINE)
        failed = super().finish(world)
        if failed or world.host.state(world.id("n")) == "running":
            return failed
        # Killed between its definition and its start.
        ran = world.snapdeck("sandbox", "start", world.id("n"), "--host", "alpha")
        return None if ran.code == 0 else ran


class SandboxDestroy(Scenario):
    name = "sandbox destroy"
    before = {("sandbox", "alpha", "d"): "v1+vars", SANDBOX: "v1"}
    after = {("sandbox", "alpha", "d"): None, SANDBOX: "v1"}
    done_codes = (3,)
    has_variables, running = True, False

    def prepare(self, world):
        ensure_base(world)
        if world.host.state(world.id("a")) is None:
            world.make_sandbox("a", "v1")
        world.remove_sandbox("d")
        world.make_sandbox("d", "v1", variables=self.has_variables, running=self.running)

    def argv(self, world):
        return ("sandbox", "destroy", world.id("d"), "--yes", "--host", "alpha")


class SandboxDestroyRunning(SandboxDestroy):
    name = "sandbox destroy, running"
    before = {("sandbox", "alpha", "d"): "v1", SANDBOX: "v1"}
    has_variables, running = False, True


class Prune(Scenario):
    name = "prune"
    names = ("app-v1.0", "app-v1.1", "app-v1.2")
    # app-v1.0 is in use, app-v1.2 is the newest one.
    before = {
        **{("host", "alpha", name): "base" for name in names},
        **{("bucket", name): "base" for name in names},
        SANDBOX: "v1",
    }
    after = {
        **before,
        ("host", "alpha", "app-v1.1"): None,
        ("bucket", "app-v1.1"): None,
        # The copy on the host stays.
        ("bucket", "app-v1.0"): None,
    }

    def prepare(self, world):
        image, host = f"{golden.ROOT}/base.qcow2", world.host
        for number, name in enumerate(self.names):
            if not s3.request("HEAD", world.key(f"{name}.qcow2"))[1].get("etag"):
                # The order of their creation is known by their manifests only.
                put_object(world, name, image, created=f"2026-01-0{number + 1}T00:00:00Z")
            if not os.path.exists(host.snapshot(name)):
                ran = world.snapdeck("pull", name, "--host", "alpha", operator="other")
                if ran.code != 0:
                    raise HarnessError(str(ran))
        if world.host.state(world.id("a")) is None:
            world.make_sandbox("a", "v1", base="app-v1.0")
            world.planted.remember(host.snapshot("app-v1.0"))

    def argv(self, world):
        return ("prune", "--keep", "1", "--yes")


class PruneLeftovers(Scenario):
    name = "prune --leftovers"
    before = {("bucket", "new"): "v1+vars", ("host", "alpha", "new"): None}
    after = before

    def prepare(self, world):
        # By the operator whose prune removes what is left.
        killed = PullResumed()
        killed.first_operator = "home"
        killed.prepare(world)
        # Over SSH the host's programs may still write.
        checks.process_violations(world)
        old = time.time() - 2 * DAY
        for directory in pull_directories(world.host):
            for path in (*checks.walk(directory), directory):
                os.utime(path, (old, old))

    def argv(self, world):
        return ("prune", "--leftovers", "--yes")

