"""Faults of the way to a host and of its programs."""

import os
import signal

from attacks import Attack, wait_for
from lab import HOST_SCRIPT, HarnessError, output, processes_with, wait_until

LONGEST = 60


class LinkFault(Attack):
    """The connections to a host's sshd are cut, blackholed, slowed, or lose their sshd; after a while all works again."""

    # Longer than any outage.
    host_settings = "reconnect_secs = 40\n"
    leaves_documented = True

    def __init__(self, kind, outage):
        self.kind, self.outage = kind, outage

    def disturb(self, world, child, moment, chance, log):
        link = world.host.link
        wait_for(child, moment)
        seconds = chance.uniform(*self.outage)
        if self.kind == "cut":
            link.cut()
        elif self.kind == "blackholed":
            link.freeze()
        elif self.kind == "slowed":
            link.slow(chance.choice([100_000, 1_000_000]))
        else:
            link.restart_sshd()
        wait_for(child, seconds)
        link.heal()
        log.append(f"link {self.kind} for {seconds:.1f} s")

    def heal(self, world):
        world.host.link.heal()


class LibvirtdRestart(Attack):
    """libvirtd of the host ends and starts again."""

    private = True
    host_settings = "reconnect_secs = 40\n"
    leaves_documented = True

    def disturb(self, world, child, moment, chance, log):
        host = world.host
        wait_for(child, moment)
        name = chance.choice(["TERM", "KILL"])
        with open(f"{host.root}/libvirtd.pid") as file:
            pid = int(file.read())
        os.kill(pid, getattr(signal, f"SIG{name}"))
        if not wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 60):
            raise HarnessError(f"libvirtd {pid} does not end")
        wait_for(child, chance.uniform(0, 3))
        started = output(HOST_SCRIPT, "libvirtd", host.root)
        if started.code != 0:
            raise HarnessError(str(started))
        log.append(f"libvirtd got SIG{name} and was started again")


class QemuToolKilled(Attack):
    """qemu-img and qemu-nbd are killed, up to three times."""

    leaves_documented = True

    def disturb(self, world, child, moment, chance, log):
        # Most run in the first part of a command.
        wait_for(child, moment * chance.random())
        killed = []
        for _ in range(chance.randint(1, 3)):
            wait_until(lambda: child.poll() is not None or self.victims(world), LONGEST, interval=0.002)
            wait_for(child, chance.uniform(0, 0.05))
            for pid, name, _ in self.victims(world):
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(name)
                except ProcessLookupError:
                    pass
        log.append(f"killed {killed}")

    def victims(self, world):
        return [process for process in processes_with(world.dir) if process[1] in ("qemu-img", "qemu-nbd")]
