"""The rows of the table: a fault, the commands that it meets, and the way to the host."""

import re

import scenarios as s
import scenarios_remove as r
from attacks import Kill

KILLED = (
    s.Push, s.PushOverwrite, s.PushCompact, s.Pull, s.PullDelta, s.PullResumed, s.PullOverwrite, s.Create, s.CreatePaused,
    s.CreateCopy, s.CreateConvert, r.RemoveLocal, r.RemoveBucket, r.SandboxNew, r.SandboxNewStarted, r.SandboxDestroy,
    r.SandboxDestroyRunning, r.Prune, r.PruneLeftovers,
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
    return [row for row in found if row.tries]
