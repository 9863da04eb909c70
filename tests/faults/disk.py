"""Faults of a host's disk: a small file system that becomes full, read-only, or goes down with what was not synced."""

import fcntl
import os
import struct

from attacks import Attack, wait_for
from lab import HOST_SCRIPT, MIB, HarnessError, output, run, wait_until

SIZE = "224M"
# From linux/ext4.h: _IOR('X', 125, __u32); the log is not flushed.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


class SmallDisk:
    """An ext4 at a directory, in the mount namespaces of this process and of the host."""

    def __init__(self, world, host):
        self.path, self.image, self.root = host.dir, f"{world.dir}/{host.name}.ext4", host.root
        run("truncate", "-s", SIZE, self.image)
        run("mkfs.ext4", "-q", "-m", "0", self.image)
        self.device = run("losetup", "--find", "--show", self.image).strip()
        self.mount()

    def namespaces(self):
        return ((), (HOST_SCRIPT, "enter", self.root))

    def mount(self):
        for enter in self.namespaces():
            run(*enter, "mount", "-t", "ext4", self.device, self.path)

    def unmount(self):
        for enter in self.namespaces():
            output(*enter, "umount", "-l", self.path)

    def make_read_only(self):
        """Returns whether it became read-only: it does not while a file is open for writing."""
        return output("mount", "-o", "remount,ro", self.path).code == 0

    def make_writable(self):
        run("mount", "-o", "remount,rw", self.path)

    def fill(self, spared):
        """Leaves `spared` bytes free."""
        stat = os.statvfs(self.path)
        size = stat.f_bavail * stat.f_frsize - spared
        if size > 0:
            output("fallocate", "-l", str(size), f"{self.path}/other/filler")

    def free(self):
        if os.path.exists(f"{self.path}/other/filler"):
            os.remove(f"{self.path}/other/filler")

    def shut_down(self):
        """All further reads and writes fail; what was not synced is lost."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def mount_again(self):
        # Not lazily: as long as a process has a file open, the dead file system would be mounted again.
        for enter in self.namespaces():
            wait_until(lambda: output(*enter, "umount", self.path).code == 0, 60, interval=0.2)
        output("e2fsck", "-fy", self.device)
        self.mount()

    def remove(self):
        self.unmount()
        output("losetup", "-d", self.device)


def reason_to_skip():
    return None if os.geteuid() == 0 else "only root may mount"


class DiskFault(Attack):
    has_disk = True
    leaves_documented = True

    def heal(self, world):
        pass

    def uninstall(self, world):
        world.disk.remove()


class DiskFull(DiskFault):
    """The disk fills up at some moment; later there is space again."""

    def disturb(self, world, child, moment, chance, log):
        spared = chance.choice([0, chance.randrange(2 * MIB), chance.randrange(16 * MIB)])
        wait_for(child, moment * chance.choice([0, 1]))
        world.disk.fill(spared)
        wait_for(child, chance.uniform(5, 20))
        log.append(f"filled, with {spared} bytes spared")
        world.disk.free()

    def heal(self, world):
        world.disk.free()


class ReadOnly(DiskFault):
    """The disk becomes read-only as soon as no file is open for writing."""

    def disturb(self, world, child, moment, chance, log):
        wait_for(child, moment * chance.choice([0, 1]))
        done = world.disk.make_read_only()
        while not done and child.poll() is None:
            wait_for(child, 0.01)
            done = world.disk.make_read_only()
        log.append(f"read-only: {done}, {'in the middle' if child.poll() is None else 'after the end'}")
        wait_for(child, chance.uniform(5, 20))
        world.disk.make_writable()

    def heal(self, world):
        world.disk.make_writable()


class DiskDies(DiskFault):
    """All reads and writes fail from some moment on; then the file system is repaired and mounted again."""

    def disturb(self, world, child, moment, chance, log):
        wait_for(child, moment)
        # The files that the harness has made are on the disk; those of the command need not be.
        if child.poll() is not None:
            log.append("the command had ended")
            return
        world.disk.shut_down()
        wait_for(child, 60)
        log.append("the file system was shut down")
        if child.poll() is None:
            raise HarnessError("the command does not end on a dead disk")

    def arm(self, world, chance, log):
        os.sync()

    def heal(self, world):
        world.disk.mount_again()
