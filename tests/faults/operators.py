"""Two operators, each with a home directory and state of its own, work on the same names at the same time."""

from attacks import Attack, wait_for
from lab import DEADLINE
from scenarios import SANDBOX, PullOverwrite, Scenario, ensure_base, ensure_object
from world import finish

B = ("sandbox", "alpha", "b")
NEW, ON_HOST = ("bucket", "new"), ("host", "alpha", "new")


class Together(Attack):
    """Runs the second command of a scenario at about the same time as the first one."""

    leaves_documented = True

    def disturb(self, world, child, moment, chance, log):
        scenario = self.scenario
        wait_for(child, moment * chance.choice([0, 0.3, 1]))
        second = finish(world.start(*scenario.second_argv(world), operator="other"), DEADLINE)
        child.wait(DEADLINE)
        log.append(f"with {second or 'a command that did not end'}")
        self.second = second

    def violations(self, world, first):
        if self.second is None:
            return ["the second command does not end"]
        return self.scenario.together_violations(first.code, self.second.code)


class Concurrent(Scenario):
    def second_argv(self, world):
        raise NotImplementedError

    def together_violations(self, first, second):
        """Checks the exit codes of the two."""
        return [f"{name} ended with {code}" for name, code in (("first", first), ("second", second)) if code not in (0, 1, 3, 4)]


class PushPush(Concurrent):
    name = "push and push"
    before = {NEW: None, SANDBOX: "v1+vars", B: "v2+vars"}
    after = {NEW: ("v1+vars", "v2+vars"), SANDBOX: "v1+vars", B: "v2+vars"}
    proven = (NEW,)
    flags = ()

    def prepare(self, world):
        ensure_base(world)
        world.remove_object("new")
        for short, version in (("a", "v1"), ("b", "v2")):
            if world.host.state(world.id(short)) is None:
                world.make_sandbox(short, version, variables=True)

    def argv(self, world):
        return ("push", world.id("a"), "new", *self.flags, "--host", "alpha")

    def second_argv(self, world):
        return ("push", world.id("b"), "new", *self.flags, "--host", "alpha")

    def together_violations(self, first, second):
        if first == second == 0:
            return ["both pushed a new object of one name"]
        return super().together_violations(first, second)

    done_codes = (4,)


class PushPushOverwrite(PushPush):
    name = "push --overwrite and push --overwrite"
    before = {**PushPush.before, NEW: "v1+vars"}
    flags = ("--overwrite",)

    def prepare(self, world):
        super().prepare(world)
        ensure_object(world, "new", "v1+vars")

    def together_violations(self, first, second):
        if 0 not in (first, second):
            return [f"nobody pushed: {first}, {second}"]
        return Concurrent.together_violations(self, first, second)


class PushPull(Concurrent):
    name = "push --overwrite and pull"
    before = {NEW: "v1+vars", ON_HOST: None, SANDBOX: "v2+vars"}
    after = {NEW: "v2+vars", ON_HOST: (None, "v1+vars", "v2+vars"), SANDBOX: "v2+vars"}
    proven = (NEW,)

    def prepare(self, world):
        ensure_object(world, "new", "v1+vars")
        world.host.remove_snapshot("new")
        if world.host.state(world.id("a")) is None:
            world.make_sandbox("a", "v2", variables=True)

    def argv(self, world):
        return ("push", world.id("a"), "new", "--overwrite", "--host", "alpha")

    def second_argv(self, world):
        return ("pull", "new", "--host", "alpha")

    def finish(self, world):
        failed = super().finish(world)
        # A pull that was interrupted leaves its partial file for the next one.
        ran = world.snapdeck(*self.second_argv(world), "--overwrite", operator="other")
        return failed or (None if ran.code == 0 else ran)


class PushRemove(PushPushOverwrite):
    name = "push --overwrite and remove --bucket"
    after = {NEW: (None, "v1+vars"), SANDBOX: "v1+vars", B: "v2+vars"}
    proven = ()

    def second_argv(self, world):
        return ("remove", "new", "--bucket", "--host", "alpha")


class PullRemove(Concurrent, PullOverwrite):
    name = "pull --overwrite and remove --local"
    after = {NEW: "v2+vars", ON_HOST: (None, "v1+vars", "v2+vars")}
    proven = ()

    def second_argv(self, world):
        return ("remove", "new", "--local", "--host", "alpha")


class PullPrune(PullRemove):
    name = "pull --overwrite and prune --unused"
    before = {**PullRemove.before, SANDBOX: "v1"}
    after = {**PullRemove.after, SANDBOX: "v1"}

    def prepare(self, world):
        super().prepare(world)
        if world.host.state(world.id("a")) is None:
            world.make_sandbox("a", "v1")

    def second_argv(self, world):
        return ("prune", "--unused", "--yes", "--host", "alpha")


class NewDestroy(Concurrent):
    name = "sandbox new and sandbox destroy"
    before = {B: None}
    after = {B: (None, "base")}
    done_codes = (4,)

    def prepare(self, world):
        ensure_base(world)
        world.remove_sandbox("b")

    def argv(self, world):
        return ("sandbox", "new", world.id("b"), "base", "--host", "alpha")

    def second_argv(self, world):
        return ("sandbox", "destroy", world.id("b"), "--yes", "--host", "alpha")
