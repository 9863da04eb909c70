"""The rows of the table: a fault, the commands that it meets, and the way to the host."""

import re

import scenarios as s
import scenarios_remove as r
from attacks import Kill
from store import StoreFault

KILLED = (
    s.Push, s.PushCopied, s.PushOverwrite, s.PushCompact, s.Pull, s.PullDelta, s.PullResumed, s.PullOverwrite, s.Create, s.CreatePaused,
    s.CreateCopy, s.CreateConvert, r.RemoveLocal, r.RemoveBucket, r.SandboxNew, r.SandboxNewStarted, r.SandboxDestroy,
    r.SandboxDestroyRunning, r.Prune, r.PruneLeftovers,
)

STORED = (
    s.PushOverwrite, s.Pull, s.PushCopied, s.PullDelta, s.Push, r.RemoveBucket, s.PullResumed, s.Create, s.PullOverwrite,
    r.Prune, s.PushCompact,
)
STORE_FAULTS = (
    StoreFault("500", 0.7, (0.2, 5)), StoreFault("503", 0.7, (0.2, 5)), StoreFault("SlowDown", 0.7, (0.2, 5)),
    StoreFault("resets", 0.5, (0.2, 5)), StoreFault("stalls", 0.5, (1, 20)), StoreFault("truncation", 0.3),
    StoreFault("flipped bits", 0.5), StoreFault("wrong lengths", 0.4), StoreFault("200 with an error", 0.6),
    StoreFault("lost answers", 0.3), StoreFault("lost tags", 0.4), StoreFault("5 % dropped", 0.05),
)


class Row:
    def __init__(self, name, attack, scenarios, tries, over_ssh=False, skipped=None):
        self.name = f"{name}{', over SSH' if over_ssh else ''}"
        self.slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        self.attack, self.scenarios = attack, [scenario() for scenario in scenarios]
        self.tries, self.over_ssh, self.skipped = tries, over_ssh, skipped


def rows(kills, tries):
    """Returns all rows; `kills` is the number of kills over all of them, `tries` that of each other row."""
    found = []
    each = max(1, -(-kills // (2 * len(KILLED)))) if kills else 0
    for over_ssh in (False, True):
        for scenario in KILLED:
            found.append(Row(f"kill -9: {scenario.name}", Kill(), [scenario], each, over_ssh))
    found += [Row(f"store: {attack.kind}", attack, STORED, tries) for attack in STORE_FAULTS]
    # Longer than any series of quick retries.
    outage = StoreFault("503", 1.0, (15, 25), must_succeed=True)
    found.append(Row("store: 503 for 20 s, the command waits", outage, (s.Push, s.Pull, s.PushOverwrite), tries))
    return [row for row in found if row.tries]
