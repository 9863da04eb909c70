"""One try: a world is prepared, a command disturbed, and everything checked that must be true then."""

import copy
import itertools
import os
import random
import re
import shutil
import statistics
import sys
import time

import checks
import s3
from lab import DEADLINE, PROJECT, output
from world import World, finish

worlds = itertools.count(1)
KEPT = f"{PROJECT}/.lab/faults"
# The command is disturbed within this share of the time that it takes undisturbed.
LATEST = 1.1


def unignored(problems):
    """Returns the violations that count: all, unless FAULTS_IGNORE has a regular expression for others."""
    ignored = os.environ.get("FAULTS_IGNORE")
    return [problem for problem in problems if not (ignored and re.search(ignored, problem))]


def next_tag():
    """Returns a short tag that is unique in the lab."""
    number, text = os.getpid(), ""
    while number:
        number, digit = divmod(number, 36)
        text = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + text
    return f"f{text}-{next(worlds)}"


class Trial:
    """The tries of one scenario in one row."""

    def __init__(self, row, scenario):
        self.row, self.scenario = row, scenario
        self.attack = copy.copy(row.attack)
        self.attack.scenario = scenario
        self.world = None
        self.seconds = None

    def open_world(self):
        if self.world is None:
            names = self.scenario.hosts
            self.world = World(next_tag(), self.row.over_ssh, names, self.attack.private, self.attack.has_disk)
            for host in self.world.hosts:
                host.settings_extra = self.scenario.settings + self.attack.host_settings
            self.world.firmware = self.scenario.firmware
            self.attack.install(self.world)
            self.world.configure()
        return self.world

    def prepare(self):
        world = self.open_world()
        world.clear_state()
        for upload in s3.uploads(f"{world.tag}/"):
            if upload not in world.planted.uploads:
                s3.abort(*upload)
        self.scenario.prepare(world)
        return world

    def measure(self):
        """Runs the command undisturbed; returns the violations."""
        times, problems = [], []
        for _ in range(2):
            world = self.prepare()
            began = time.monotonic()
            ran = world.snapdeck(*self.scenario.argv(world))
            times.append(time.monotonic() - began)
            if ran.code != 0:
                return [f"undisturbed: {ran}"]
            problems += self.final_violations(world, leaves_documented=False)
        self.seconds = statistics.mean(times)
        return problems

    def attempt(self, seed):
        """Disturbs the command once; returns (what was done, violations)."""
        if self.seconds is None:
            problems = self.measure()
            if unignored(problems) or self.seconds is None:
                self.keep(seed, "undisturbed", problems)
                return "undisturbed", problems
        world, chance = self.prepare(), random.Random(seed)
        # For measurements see `measure`; a slow machine only makes moments earlier.
        moment = chance.uniform(0, LATEST) * self.seconds
        log = [f"seed {seed}, {moment:.3f} s of {self.seconds:.3f} s"]
        self.attack.arm(world, chance, log)
        child = world.start(*self.scenario.argv(world))
        try:
            self.attack.disturb(world, child, moment, chance, log)
            ran = finish(child, DEADLINE)
        finally:
            self.attack.heal(world)
        log.append(str(ran) if ran else f"{' '.join(child.argv)} did not end within {DEADLINE} s")
        problems = [] if ran else ["it does not end"]
        if ran and ("panicked" in ran.stderr or ran.code in (101, -6, -11)):
            problems.append("it panicked")
        is_done = ran is not None and ran.code == 0
        if self.attack.must_succeed and not is_done:
            problems.append("it should have waited")
        if ran:
            problems += self.attack.violations(world, ran)
        problems += self.middle_violations(world, is_done)
        if not unignored(problems):
            failed = self.attack.finish(world, self.scenario)
            if failed:
                log.append(f"then {failed}")
                problems.append("the same command does not finish the work")
            problems += self.final_violations(world, self.attack.leaves_documented)
        problems += world.planted.violations()
        log += problems
        if unignored(problems):
            self.keep(seed, "\n".join(log), problems)
        return "\n".join(log), problems

    def middle_violations(self, world, is_done):
        """What must be true right after the fault; with exit code 0 everything is done."""
        scenario = self.scenario
        problems = checks.guest_violations(world, scenario.guests) if self.attack.has_watchdog else []
        before = scenario.after if is_done else scenario.before
        problems += checks.place_violations(world, before, scenario.after, is_done, scenario.proven)
        return problems + scenario.extra_violations(world)

    def final_violations(self, world, leaves_documented):
        scenario = self.scenario
        problems = checks.place_violations(world, scenario.after, scenario.after, True, scenario.proven)
        problems += checks.guest_violations(world, scenario.guests)
        # What runs may still write.
        problems += checks.process_violations(world)
        return problems + checks.leftover_violations(world, scenario.after, leaves_documented)

    def keep(self, seed, log, problems):
        """Keeps the files of a failed try; the next one gets a new world."""
        place = f"{KEPT}/{self.row.slug}-{seed.replace(':', '-')}"
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        world = self.world
        with open(f"{place}/report.txt", "w") as file:
            file.write(f"{self.row.name}: {self.scenario.name}\n{log}\n\n" + "\n".join(problems) + "\n\n")
            for root in (f"{host.dir}" for host in world.hosts):
                file.write(output("ls", "-laRi", root).stdout)
            file.write("\n".join([*s3.keys(f"{world.tag}/"), *map(str, s3.uploads(f"{world.tag}/"))]) + "\n")
        output("cp", "-a", "--sparse=always", world.dir, f"{place}/world")
        self.close()

    def close(self):
        if self.world:
            try:
                self.attack.uninstall(self.world)
                self.world.remove()
            except Exception as error:
                print(f"cannot remove the world {self.world.dir}: {error}", file=sys.stderr)
        self.world = None
