"""Ways to disturb a command. The simplest one kills snapdeck."""

import os
import signal
import time

from lab import process_tree


class Attack:
    """Faults of one kind. `install` prepares a world, `arm` a try, `disturb` acts while the command runs."""

    # Whether its hosts have their own libvirtd, and whether the first one has a small disk.
    private, has_disk = False, False
    host_settings = ""
    # Whether a watchdog may be relied upon after the fault.
    has_watchdog = True
    # Whether the command itself has to succeed.
    must_succeed = False
    # Whether uploads and temporary directories may be left for `prune --leftovers`.
    leaves_documented = False

    def install(self, world):
        pass

    def uninstall(self, world):
        pass

    def arm(self, world, chance, log):
        pass

    def disturb(self, world, child, moment, chance, log):
        pass

    def violations(self, world, ran):
        """Checks what only this fault can violate."""
        return []

    def heal(self, world):
        pass

    def finish(self, world, scenario):
        """Runs the command again; returns its output if it failed."""
        return scenario.finish(world)


def wait_for(child, seconds):
    """Waits until a time has passed or the process has ended."""
    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        time.sleep(min(0.002, max(0, end - time.monotonic())))


class Kill(Attack):
    """kill -9 of snapdeck; every fourth time with all its processes on this machine, the watchdog included."""

    leaves_documented = True

    def disturb(self, world, child, moment, chance, log):
        with_children = chance.random() < 0.25
        wait_for(child, moment)
        # The number of a process that has ended may be that of another one now.
        alive = child.poll() is None
        victims = (process_tree(child.pid) if with_children else [child.pid]) if alive else []
        self.has_watchdog = not with_children or world.over_ssh
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        log.append(f"killed {len(victims)} processes" + (" (with all children)" if with_children else ""))
