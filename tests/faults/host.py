"""One host of a world: its directories, its libvirt and, over SSH, its link."""

import os
import shutil

import golden
from disk import SmallDisk
from lab import HOST_SCRIPT, LAB, HarnessError, output, run, wait_until
from link import Link

DIRECTORIES = ("snapshots", "sandboxes", "nvram", "temp")
CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"


class Host:
    def __init__(self, world, name, root, over_ssh, has_disk=False):
        self.world, self.name, self.root = world, name, root
        self.dir = f"{world.dir}/{name}"
        # More keys of its [[hosts]].
        self.settings_extra = ""
        if has_disk:
            os.makedirs(self.dir)
            world.disk = SmallDisk(world, self)
        for directory in (*DIRECTORIES, "other"):
            os.makedirs(f"{self.dir}/{directory}", exist_ok=True)
        self.link = Link(f"{world.dir}/{name}.ssh", self.holder) if over_ssh else None
        self.socket = f"{root}/run/libvirt/libvirt-sock"

    def holder(self):
        """Returns the process that keeps its mount namespace."""
        with open(f"{self.root}/holder.pid") as file:
            return int(file.read())

    @property
    def uri(self):
        return self.link.uri() if self.link else f"qemu:///system?socket={self.socket}"

    def settings(self):
        # The time for which a host over SSH keeps the files of a killed snapdeck.
        reconnect = "" if "reconnect_secs" in self.settings_extra or not self.link else "reconnect_secs = 3\n"
        return (
            f'[[hosts]]\nname = "{self.name}"\nuri = "{self.uri}"\n'
            + "".join(f'{name}_dir = "{self.dir}/{name}"\n' for name in DIRECTORIES)
            + f'owner = "{os.getuid()}:{os.getgid()}"\n{reconnect}{self.settings_extra}'
        )

    def path(self, *parts):
        return "/".join((self.dir, *parts))

    def snapshot(self, name):
        return self.path("snapshots", f"{name}.qcow2")

    def disk(self, sandbox):
        return self.path("sandboxes", f"{sandbox}.qcow2")

    def nvram(self, sandbox):
        return self.path("nvram", f"{sandbox}_VARS.fd")

    def enter(self, *argv):
        """Runs a program in its mount namespace."""
        return run(HOST_SCRIPT, "enter", self.root, *argv)

    def try_virsh(self, *args):
        """Runs virsh; once more if libvirtd crashed meanwhile (the lab restarts it)."""
        argv = ("virsh", "-q", "-c", f"qemu:///system?socket={self.socket}", *args)
        ran = output(*argv)
        if ran.code != 0 and self.wait_for_libvirtd() and "error: failed to connect" in ran.stderr + ran.stdout:
            ran = output(*argv)
        return ran

    def wait_for_libvirtd(self):
        """Waits while a crashed libvirtd is being restarted."""
        return wait_until(lambda: not os.path.exists(f"{self.root}/libvirtd.restarting"), deadline=60)

    def crashes(self):
        """Returns the number of crashes of its libvirtd so far."""
        self.wait_for_libvirtd()
        try:
            with open(f"{LAB}/crashes.log") as file:
                return sum(f" libvirtd of {self.root} " in line for line in file)
        except OSError:
            return 0

    def virsh(self, *args):
        ran = self.try_virsh(*args)
        if ran.code != 0:
            raise HarnessError(str(ran))
        return ran.stdout

    def domains(self):
        """Returns the names of all domains of this world."""
        names = self.virsh("list", "--all", "--name").split()
        return sorted(name for name in names if name.startswith(f"{self.world.tag}-"))

    def state(self, domain):
        """Returns libvirt's word for the state, or None without such a domain."""
        ran = self.try_virsh("domstate", domain)
        return ran.stdout.strip() if ran.code == 0 else None

    def put_snapshot(self, name):
        """Creates a golden base image. It has no manifest, as an image that was copied by hand."""
        self.remove_snapshot(name)
        shutil.copyfile(f"{golden.ROOT}/base.qcow2", self.snapshot(name))

    def remove_snapshot(self, name):
        for file in (f"{name}.qcow2", f"{name}.json", f"{name}_VARS.fd"):
            if os.path.exists(self.path("snapshots", file)):
                os.remove(self.path("snapshots", file))

    def define(self, domain, disk, variables=None):
        """Defines a domain with one disk and no operating system."""
        firmware = f"<loader readonly='yes' type='pflash'>{CODE}</loader><nvram>{variables}</nvram>" if variables else ""
        machine = "q35" if variables else "pc"
        xml = (
            f"<domain type='qemu'><name>{domain}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
            f"<os><type arch='x86_64' machine='{machine}'>hvm</type>{firmware}</os><features><acpi/></features><devices>"
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>"
            f"<source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
        )
        file = self.path("other", "domain.xml")
        with open(file, "w") as out:
            out.write(xml)
        self.virsh("define", file)

    def remove_domain(self, domain):
        for verb in (("destroy",), ("managedsave-remove",), ("undefine", "--nvram")):
            self.try_virsh(verb[0], domain, *verb[1:])
        # undefine without --nvram where libvirt refuses it for a missing file.
        self.try_virsh("undefine", domain)
