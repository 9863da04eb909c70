"""The rows of the table: a fault, the commands that it meets, and the way to the host."""

import re

import operators as o
import scenarios as s
import scenarios_guest as g
import scenarios_remove as r
from attacks import Kill
from attacks_host import LibvirtdRestart, LinkFault, QemuToolKilled
from disk import DiskDies, DiskFull, ReadOnly
from disk import reason_to_skip as no_mount
from shim import ClockJump, FailedSync, reason_to_skip
from store import StoreFault

KILLED = (
    s.Push, s.PushCopied, s.PushOverwrite, s.PushCompact, s.Pull, s.PullDelta, s.PullResumed, s.PullOverwrite, s.Create, s.CreatePaused,
    s.CreateCopy, s.CreateConvert, r.RemoveLocal, r.RemoveBucket, r.SandboxNew, r.SandboxNewStarted, r.SandboxDestroy,
    r.SandboxDestroyRunning, r.Prune, r.PruneLeftovers,
)

# Reads of objects, and completions of uploads.
READS = (s.Pull, s.PushCopied, s.PullDelta, s.PullResumed, s.PullOverwrite)
WRITES = (s.PushOverwrite, s.PushCopied, s.Push, s.PushCompact, s.Create)
STORED = (*WRITES, *READS, r.RemoveBucket, r.Prune)
STORE_FAULTS = (
    (StoreFault("500", 0.7, (0.2, 5)), STORED), (StoreFault("503", 0.7, (0.2, 5)), STORED),
    (StoreFault("SlowDown", 0.7, (0.2, 5)), STORED), (StoreFault("resets", 0.5, (0.2, 5)), STORED),
    (StoreFault("stalls", 0.5, (1, 20)), STORED), (StoreFault("truncation", 0.3), READS),
    (StoreFault("flipped bits", 0.5), READS), (StoreFault("wrong lengths", 0.4), STORED),
    (StoreFault("200 with an error", 0.6), WRITES), (StoreFault("lost answers", 0.3), (*WRITES, r.RemoveBucket, r.Prune)),
    (StoreFault("lost tags", 0.4), STORED), (StoreFault("5 % dropped", 0.05), STORED),
)
# Commands that use a host.
HOSTED = (
    s.PullOverwrite, s.Create, s.PushOverwrite, r.SandboxNew, s.PullDelta, s.CreateConvert, r.SandboxDestroyRunning,
    s.PullResumed, r.RemoveLocal, s.CreateCopy, r.SandboxDestroy, s.PushCompact, r.Prune, s.Pull,
)
# Commands that write to a disk.
WRITTEN = (
    s.PullOverwrite, s.CreateConvert, s.PullDelta, r.SandboxNew, s.PullResumed, s.CreateCopy, s.Pull, r.SandboxDestroy,
    r.RemoveLocal, s.PushOverwrite,
)
# Without running guests, which would keep the dead file system.
DURABLE = tuple(scenario for scenario in WRITTEN if not scenario.guests)
LIBVIRT = (s.Create, r.SandboxNew, s.CreateConvert, r.SandboxDestroyRunning, s.PushOverwrite, r.SandboxNewStarted)
LINK_FAULTS = (("cut", (0.1, 5)), ("blackholed", (1, 30)), ("slowed", (3, 10)), ("without sshd", (0.1, 1)))
TOGETHER = (o.PushPush, o.PushPushOverwrite, o.PushPull, o.PushRemove, o.PullRemove, o.PullPrune, o.NewDestroy)


class Row:
    def __init__(self, name, attack, scenarios, tries, over_ssh=False, skipped=None):
        self.name = f"{name}{', over SSH' if over_ssh else ''}"
        self.slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        self.attack, self.scenarios = attack, [scenario() for scenario in scenarios]
        self.tries, self.over_ssh, self.skipped = tries, over_ssh, skipped


def rows(kills, tries):
    """Returns all rows; `kills` is the number of kills over all of them, `tries` that of each other row."""
    each = max(1, -(-kills // (2 * len(KILLED) + 2))) if kills else 0
    found = []
    for over_ssh in (False, True):
        found += [Row(f"kill -9: {scenario.name}", Kill(), [scenario], each, over_ssh) for scenario in KILLED]
        no_guest = g.reason_to_skip()
        found.append(Row(f"kill -9: {g.CreateQuiesced.name}", Kill(), [g.CreateQuiesced], each, over_ssh, no_guest))
    found += [Row(f"store: {attack.kind}", attack, scenarios, tries) for attack, scenarios in STORE_FAULTS]
    # Longer than any series of quick retries.
    outage = StoreFault("503", 1.0, (15, 25), must_succeed=True)
    found.append(Row("store: 503 for 20 s, the command waits", outage, (s.Push, s.Pull, s.PushOverwrite), tries))
    quiesced = [] if g.reason_to_skip() else [g.CreateQuiesced]
    found += [Row(f"link {kind}", LinkFault(kind, outage), [*HOSTED[:2], *quiesced, *HOSTED[2:]], tries, over_ssh=True) for kind, outage in LINK_FAULTS]
    found += [Row(f"two operators: {scenario.name}", o.Together(), [scenario], tries) for scenario in TOGETHER]
    for over_ssh in (False, True):
        found += [
            Row("libvirtd restarted", LibvirtdRestart(), LIBVIRT, tries, over_ssh),
            Row("qemu-img and qemu-nbd killed", QemuToolKilled(), HOSTED, tries, over_ssh),
            Row("disk full", DiskFull(), WRITTEN, tries, over_ssh, no_mount()),
            Row("disk read-only", ReadOnly(), WRITTEN, tries, over_ssh, no_mount()),
            Row("disk dies, unsynced data is lost", DiskDies(), DURABLE, tries, over_ssh, no_mount()),
            Row("failed sync", FailedSync(), WRITTEN, tries, over_ssh, reason_to_skip()),
            Row("clock jumps", ClockJump(), (*HOSTED, r.PruneLeftovers), tries, over_ssh, reason_to_skip()),
        ]
    return [row for row in found if row.tries]
