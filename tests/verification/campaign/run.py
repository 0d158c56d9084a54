"""A fault campaign: `python -m tests.verification.campaign.run --seed 7 --minutes 10`.

Prints the seed, what each round came to, and a table at the end; exits with 1 when anything in it
that must be 0 is not. Then `--keep` (default: a folder in /tmp) has the plan, ds01d's journal and
history, and the books at the moment of each violation.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from simulation.signals import own_signals
from tests.support.daemon import ROOT
from tests.verification.campaign import docker_books
from tests.verification.campaign import plan as plans
from tests.verification.campaign.clock import boot
from tests.verification.campaign.deeds import Users
from tests.verification.campaign.faults import Faults
from tests.verification.campaign.foreign import Failed, Notes
from tests.verification.campaign.ground import LONGEST_S, SWEEP_S, Ground
from tests.verification.campaign.oracle import KINDS, Oracle
from tests.verification.campaign.profiles import PROFILES

INSIDE = "DS01_CAMPAIGN_INSIDE"
PATIENCE_S = 180.0
"""For a machine that has other work: so long ds01d may take to come back, and to be done."""


@dataclass(slots=True)
class Tally:
    """What was done."""

    operations: int = 0
    failed: int = 0
    faults: int = 0
    what: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)


class Campaign:
    """One campaign on one ground."""

    def __init__(
        self, plan: plans.Plan, ground: Ground, evidence: Path, *, stop_early: bool, shared: bool
    ) -> None:
        self.plan = plan
        self.tally = Tally()
        self._ground = ground
        self._stop_early = stop_early
        notes = Notes()
        self._faults = Faults(ground, notes)
        self._users = Users(ground, notes, shim_for_all=shared)
        self.oracle = Oracle(ground, notes, self._faults, evidence)

    def run(self) -> None:
        with self.oracle, ThreadPoolExecutor(32) as pool:
            self._wait_ready()
            for number, steps in enumerate(self.plan.rounds, 1):
                began = boot()
                self._storm(steps, pool)
                self._faults.heal()
                drift = self._calm()
                self.oracle.lost_updates(began)
                found = len(self.oracle.violations)
                say(
                    f"round {number:>2} of {len(self.plan.rounds)}: {len(steps)} steps,"
                    f" right after {drift:.1f} s, {boot() - began:.0f} s, {found} violations"
                )
                if found and self._stop_early:
                    return

    def _storm(self, steps: Sequence[plans.Step], pool: ThreadPoolExecutor) -> None:
        began = boot()
        running: list[Future[None]] = []
        for step in steps:
            while (left := began + step.at - boot()) > 0:
                time.sleep(min(left, 0.05))
                self.oracle.judge()
            if self._stop_early and self.oracle.violations:
                break
            running.append(pool.submit(self._do, step))
        for future in running:
            while not future.done():
                time.sleep(0.02)
                self.oracle.judge()
            future.result()

    def _do(self, step: plans.Step) -> None:
        self.tally.what[step.what] += 1
        if step.fault:
            self.tally.faults += 1
            self._faults.do(step)
            return
        self.tally.operations += 1
        try:
            self._users.do(step)
        except Failed as error:
            self.tally.failed += 1
            self.tally.troubles[f"{step.what}: {str(error)[:100]}"] += 1

    # --- calm

    def _calm(self) -> float:
        """Until the books are right; how long that took, from when ds01d could work."""
        if not self._wait_ready():
            return 0.0
        began = boot()
        able, paced = began, self.oracle.calm.paced_s()
        sweeps = _Sweeps(self._ground)
        late = 0
        while (drifts := self._drifts()) and boot() < began + PATIENCE_S:
            if not self._can_work():
                able = boot()
                paced = self.oracle.calm.paced_s()
            if boot() < able + LONGEST_S + SWEEP_S + paced:
                late = sweeps.count()
            elif sweeps.count() >= late + 3:  # one that had begun before, one to see it, one to act
                break
            time.sleep(0.1)
        taken = boot() - able
        for subject, told in drifts.items():
            if self.oracle.calm.excused(subject):
                self.oracle.backed_off += 1
            else:
                what = f"{told} (for {taken:.1f} s)"
                self.oracle.accuse("lasting drift", what, subject)
        if not drifts:
            self.oracle.oldest_drift = max(self.oracle.oldest_drift, taken - paced)
        return taken

    def _can_work(self) -> bool:
        """Whether the machine is quick enough for ds01d's sources to answer, and it runs."""
        told = self._ground.status()
        asked = [told["sources"][name] for name in ("docker", "nvml")] if told else []
        well = bool(asked) and all(source["ok"] for source in asked)
        return well and not any(one["outcome"] == "failed" for one in told["drifts"])

    def _drifts(self) -> dict[str, str]:
        self.oracle.judge()
        found = self.oracle.calm.drifts()
        if not found:  # by a look at the engine that began after the look at the books
            now = boot()
            while self.oracle.reality.after(now) is None and boot() < now + PATIENCE_S:
                time.sleep(0.02)
            found = self.oracle.calm.drifts()
        return found

    def _wait_ready(self) -> bool:
        """Wait for ds01d, and for one whole sweep of it."""
        end = boot() + PATIENCE_S
        service = self._ground.service
        while not service.ready and boot() < end and not service.gave_up:
            time.sleep(0.02)
            self.oracle.judge()
        sweeps = _Sweeps(self._ground)
        while service.ready and sweeps.count() < 1 and boot() < end:
            time.sleep(0.02)
            self.oracle.judge()
        if sweeps.count() < 1:
            why = service.gave_up or "it does not become ready, or does not sweep"
            self.oracle.accuse("exit not recovered", f"{why}: {service.tail(5)}")
            return False
        return True


class _Sweeps:
    """Counts the sweeps that end from now on, by ds01d's status; whatever its clock says."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._last = self._newest()
        self._count = 0

    def count(self) -> int:
        now = self._newest()
        if now is not None and now != self._last:
            self._count += self._last is not None
            self._last = now
        return self._count

    def _newest(self) -> object:
        sweep = self._ground.status().get("last_sweep")
        return None if sweep is None else sweep["at"]


def report(campaign: Campaign, seconds: float) -> bool:
    """Print the table; whether all is well."""
    oracle, tally, service = campaign.oracle, campaign.tally, campaign._ground.service
    planned = sum(bool(death.planned) for death in service.deaths)
    rows: list[tuple[str, object]] = [
        ("seed", campaign.plan.seed),
        ("plan", campaign.plan.digest),
        ("seconds", round(seconds)),
        ("operations", tally.operations),
        ("  of these failed, under faults", tally.failed),
        ("faults", tally.faults),
        ("changes of the state seen", oracle.changes),
        ("releases judged", oracle.releases),
        ("entries in the history", len(oracle.books.history.entries)),
        ("starts of ds01d", service.starts),
        ("deaths by a fault", planned),
        ("unplanned exits, recovered", len(service.deaths) - planned),
        ("oldest drift in s, without the pace", round(oracle.oldest_drift, 1)),
        ("drifts held by the back-off", oracle.backed_off),
        *((many, oracle.count(kind)) for kind, many in KINDS.items()),
    ]
    width = max(len(name) for name, _ in rows)
    say("", *(f"{name:<{width}}  {value}" for name, value in rows))
    say("", "by kind: " + ", ".join(f"{k} {n}" for k, n in sorted(tally.what.items())))
    for one in oracle.violations:
        say(f"VIOLATION {one.kind}: {one.what}")
    return not oracle.violations


def main(words: Sequence[str] | None = None) -> int:
    """The exit status."""
    arguments = _arguments(words)
    if INSIDE not in os.environ:
        _go_inside()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    if arguments.books == "docker":
        return docker_books.main(seed, arguments.minutes)
    profile = PROFILES[arguments.profile]
    plan = plans.make(seed, arguments.minutes, profile.mix)
    say(
        f"seed {seed}, {arguments.minutes:g} minutes, profile {arguments.profile}: plan"
        f" {plan.digest}, {plan.count(fault=False)} operations, {plan.count(fault=True)} faults"
    )
    keep = Path(arguments.keep or tempfile.mkdtemp(prefix="ds01-campaign-"))
    keep.mkdir(parents=True, exist_ok=True)
    lines = [f"# round {n}\n" + "\n".join(s.line() for s in r) for n, r in enumerate(plan.rounds)]
    (keep / "plan.jsonl").write_text("\n".join(lines), encoding="utf-8")
    began = time.monotonic()
    with Ground(keep / "ground") as ground:
        campaign = Campaign(
            plan,
            ground,
            keep / "violations",
            stop_early=arguments.stop_early,
            shared=profile.slow_allocator,
        )
        try:
            campaign.run()
        finally:
            _collect(ground, keep, campaign)
    well = report(campaign, time.monotonic() - began)
    if well and arguments.keep is None:
        shutil.rmtree(keep, ignore_errors=True)
    else:
        say(f"kept in {keep}")
    return 0 if well else 1


def _collect(ground: Ground, keep: Path, campaign: Campaign) -> None:
    """What a person needs who looks into it."""
    shutil.copytree(ground.site.state_dir, keep / "ds01d", dirs_exist_ok=True)
    shutil.copy(ground.service.journal, keep / "journal.jsonl")
    deaths = [repr(death) for death in ground.service.deaths]
    writes = [repr(write) for write in campaign.oracle.notes.writes]
    troubles = [f"{n} × {what}" for what, n in campaign.tally.troubles.most_common()]
    (keep / "deaths.txt").write_text("\n".join(deaths), encoding="utf-8")
    (keep / "writes.txt").write_text("\n".join(writes), encoding="utf-8")
    (keep / "failed-operations.txt").write_text("\n".join(troubles), encoding="utf-8")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="everything")
    parser.add_argument("--books", choices=("files", "docker"), default="files")
    parser.add_argument("--stop-early", action="store_true", help="end at the first violation")
    parser.add_argument("--keep", help="folder for what is found; default: only if there is any")
    return parser.parse_args(words)


def _go_inside() -> None:
    """Become the same program in a mount namespace that nobody else sees."""
    if os.geteuid() != 0:
        sys.exit("a campaign needs root: a private Docker engine and file systems of its own")
    command = ["unshare", "--mount", "--propagation", "private", sys.executable]
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execvpe(  # noqa: S606 - nothing in it needs a shell
        command[0],
        [*command, "-m", "tests.verification.campaign.run", *sys.argv[1:]],
        {**os.environ, INSIDE: "1", "PYTHONPATH": str(ROOT)},
    )


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    own_signals()
    sys.exit(main())
