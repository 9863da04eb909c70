"""Failed syncs and clock jumps, by a library that is preloaded into snapdeck and into the programs of the host (shim.c)."""

import os
import shutil
import struct

from attacks import Attack, wait_for
from lab import LAB, run

LIBRARY = f"{LAB}/shim.so"
HOUR = 3600
FORMAT = "qqqq"


def reason_to_skip():
    return None if shutil.which("cc") else "no C compiler"


def build():
    if not os.path.exists(LIBRARY):
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim.c")
        new = f"{LIBRARY}.{os.getpid()}.{id(object())}"
        run("cc", "-O1", "-shared", "-fPIC", "-o", new, source, "-ldl")
        os.rename(new, LIBRARY)


class Shim(Attack):
    leaves_documented = True

    def install(self, world):
        build()
        self.control = f"{world.dir}/shim"
        self.write()
        variables = {"LD_PRELOAD": LIBRARY, "FAULTS_SHIM": self.control, "FAULTS_SHIM_DIR": f"{world.dir}/alpha/"}
        world.environment = variables
        for host in world.hosts:
            if host.link:
                host.link.environment = [f"{name}={value}" for name, value in variables.items()]
                host.link.configure()

    def write(self, clock_seconds=0, failing_sync=0):
        # In place: processes have it mapped.
        with open(self.control, "r+b" if os.path.exists(self.control) else "wb") as file:
            file.write(struct.pack(FORMAT, clock_seconds, failing_sync, 0, 0))

    def has_failed(self):
        with open(self.control, "rb") as file:
            return struct.unpack(FORMAT, file.read())[3] != 0

    def heal(self, world):
        self.write()


class FailedSync(Shim):
    """One sync fails and the last bytes written before it are lost."""

    def arm(self, world, chance, log):
        self.number = chance.randint(1, 6)
        self.write(failing_sync=self.number)

    def disturb(self, world, child, moment, chance, log):
        wait_for(child, 120)
        log.append(f"sync {self.number} {'failed' if self.has_failed() else 'was not reached'}")


class ClockJump(Shim):
    """The clock is set forward or back while the command runs."""

    def disturb(self, world, child, moment, chance, log):
        wait_for(child, moment)
        seconds = chance.choice([-400 * 24, -49, -1, 1, 25, 49, 400 * 24]) * HOUR
        self.write(clock_seconds=seconds)
        wait_for(child, 120)
        log.append(f"clock set by {seconds / HOUR:.0f} h")
