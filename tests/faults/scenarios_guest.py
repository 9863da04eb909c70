"""Snapshots of the lab's Linux guest (tests/lab/guest.init), which writes numbered records and whose agent freezes."""

import os

import checks
import golden
import s3
from lab import LAB, MIB, PROJECT, HarnessError, output, wait_until
from scenarios import Push, Scenario, ensure_base

GUEST = f"{PROJECT}/.lab/guest"
SECTOR = 512
BOOT_DEADLINE = 120


def reason_to_skip():
    return None if os.path.exists(f"{GUEST}/kernel") else "no test guest: see tests/lab/guest.sh"


def read_records(path):
    """Returns the number in the head of a disk, or None if a record up to there is missing."""
    raw = f"{LAB}/records-{os.getpid()}-{id(path)}.raw"
    try:
        if output("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw).code != 0:
            return None
        with open(raw, "rb") as disk:
            sector = lambda number: (disk.seek(number * SECTOR), disk.read(SECTOR).rstrip(b"\0").strip())[1]
            head = int(sector(8) or b"0")
            is_whole = all(sector(2048 + number) == b"record %d" % number for number in range(1, head + 1))
            return head if is_whole and head > 0 else None
    finally:
        if os.path.exists(raw):
            os.remove(raw)


checks.SPECIAL["guest"] = lambda path: read_records(path) is not None


class CreateQuiesced(Scenario):
    name = "create, guest with agent"
    before = {("bucket", "new"): None, ("sandbox", "alpha", "g"): "guest"}
    after = {("bucket", "new"): "guest", ("sandbox", "alpha", "g"): "guest"}
    proven = (("bucket", "new"),)
    guests = {("alpha", "g"): "running"}

    def log(self, world):
        return f"{world.dir}/guest.log"

    def lines(self, world, word):
        """Returns the words of the guest's lines of one kind."""
        text = (checks.read(self.log(world)) or b"").decode(errors="replace")
        # The last line may be incomplete.
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [line.split()[2:] for line in whole if line.startswith(f"guest {word} ")]

    def prepare(self, world):
        ensure_base(world)
        world.remove_object("new")
        host, guest = world.host, world.id("g")
        if host.state(guest) == "running":
            return
        host.remove_domain(guest)
        golden.make_overlay(host.disk(guest), host.snapshot("base"), "v1")
        # The records begin on an empty disk.
        output("qemu-io", "-f", "qcow2", "-c", f"write -q -z 0 {golden.DISK_MIB * MIB}", host.disk(guest))
        if os.path.exists(self.log(world)):
            os.remove(self.log(world))
        file = host.path("other", "guest.xml")
        with open(file, "w") as out:
            out.write(
                f"<domain type='qemu'><name>{guest}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>"
                f"<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{GUEST}/kernel</kernel>"
                f"<initrd>{GUEST}/initrd</initrd><cmdline>console=ttyS0 quiet panic=-1 agent</cmdline></os>"
                "<features><acpi/></features><devices><disk type='file' device='disk'>"
                f"<driver name='qemu' type='qcow2' discard='unmap'/><source file='{host.disk(guest)}'/>"
                f"<target dev='vda' bus='virtio'/></disk><serial type='file'><source path='{self.log(world)}'/>"
                "<target port='0'/></serial><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/>"
                "</channel></devices></domain>"
            )
        host.virsh("define", file)
        host.virsh("start", guest)
        if not wait_until(lambda: self.lines(world, "alive"), BOOT_DEADLINE):
            raise HarnessError(f"the guest does not boot: {self.log(world)}")

    def argv(self, world):
        return ("create", world.id("g"), "new", "--host", "alpha")

    finish = Push.finish

    def extra_violations(self, world):
        """The guest continues, thawed; a quiesced object has the records of a freeze."""
        count = len(self.lines(world, "alive"))
        problems = []
        if not wait_until(lambda: len(self.lines(world, "alive")) > count, checks.SETTLE_DEADLINE):
            problems.append("the guest does not continue")
        frozen = self.lines(world, "frozen")
        if not wait_until(lambda: len(self.lines(world, "thawed")) >= len(frozen), checks.SETTLE_DEADLINE):
            problems.append("the guest stays frozen")
        found, manifest = s3.get(world.key("new.qcow2")), s3.get(world.key("new.json"))
        label = (checks.parse_manifest(manifest[1]) or {}).get("consistency") if manifest else None
        if found and label == "quiesced":
            path = f"{world.dir}/quiesced.qcow2"
            with open(path, "wb") as file:
                file.write(found[1])
            head = read_records(path)
            if str(head) not in [words[1] for words in frozen]:
                problems.append(f"an object that says quiesced has head {head}, the guest froze at {frozen}")
        return problems
