"""A campaign over several hosts and one etcd: `make soak-fleet SEED=7 MINUTES=10`.

Rounds: in each a storm of bookings, releases and faults; then all faults end, and nothing is done
until the books of every host and the store say the same. The watch of the whole is then replayed by
`checker.py`. Prints a table, and exits with 1 when anything in it that must be 0 is not; then a
folder is kept with the history and what the hosts and members logged.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from simulation.signals import own_signals
from tests.verification.fleet.checker import KINDS, Violation
from tests.verification.fleet.fleet import FOUND, Fleet, open_fleet
from tests.verification.fleet.storm import MIXES, Mix, Storm

STORM_S = 20.0
FIRST_FINDING_S = 12.0
"""Of a storm, where the first violation ends all."""


def campaign(fleet: Fleet, seed: int, minutes: float, mix: Mix, *, stop_early: bool = False) -> int:
    """Rounds until the time is over; how many there were."""
    ends = time.monotonic() + 60 * minutes
    number = 0
    while time.monotonic() < ends:
        number += 1
        began = time.monotonic()
        storm = Storm(fleet, random.Random(f"{seed} {number}"), number, mix)
        longest = FIRST_FINDING_S if stop_early else STORM_S
        storm.run(min(longest, max(2.0, ends - began)))
        calm = fleet.calm_down()
        found = fleet.check() if stop_early else []
        say(
            f"round {number:>2}: {storm.operations} operations, {storm.faults} faults,"
            f" right after {calm:.1f} s, {time.monotonic() - began:.0f} s"
        )
        say(*(f"  a while after all faults had ended: {what}" for what in fleet.slow[:3]))
        if found:
            break
    return number


def report(fleet: Fleet, found: Sequence[Violation], seconds: float) -> None:
    """Print the table."""
    history = fleet.history
    outcomes = Counter(one.outcome for one in history.attempts)
    reserved = fleet.count_reservations()
    rows: list[tuple[str, object]] = [
        ("hosts", len(fleet.hosts)),
        ("seconds", round(seconds)),
        ("bookings asked for", len(history.attempts)),
        ("  granted", outcomes["granted"]),
        ("  refused", outcomes["refused"]),
        ("  without an answer", outcomes[""]),
        ("reservations in the store", reserved),
        ("changes of the store", len(history.changes)),
        ("looks at books", len(history.looks)),
        ("hosts killed", sum(host.kills for host in fleet.hosts)),
        ("restores from a snapshot", len(history.restores)),
        ("longest until nothing differed, in s", round(fleet.longest_calm, 1)),
    ]
    counts = Counter(one.kind for one in found)
    rows += [(f"{kind}", counts[kind]) for kind in (*KINDS, *FOUND)]
    width = max(len(name) for name, _ in rows)
    say("", *(f"{name:<{width}}  {value}" for name, value in rows))
    say("", "faults: " + ", ".join(f"{k} {n}" for k, n in sorted(fleet.faults.items())))
    refusals = Counter(one.code for one in history.attempts if one.outcome == "refused")
    say("refused: " + ", ".join(f"{k} {n}" for k, n in refusals.most_common()))
    for one in found[:40]:
        say(f"VIOLATION {one.kind}: {one.what}")


def main(words: Sequence[str] | None = None) -> int:
    """The exit status."""
    arguments = _arguments(words)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    keep = Path(arguments.keep or tempfile.mkdtemp(prefix="ds01-soak-fleet-"))
    keep.mkdir(parents=True, exist_ok=True)
    say(f"seed {seed}, {arguments.minutes:g} minutes, {arguments.count} hosts ({arguments.hosts})")
    began, mix = time.monotonic(), MIXES[arguments.mix]
    with open_fleet(
        keep / "fleet",
        kind=arguments.hosts,
        count=arguments.count,
        bugs=arguments.bug,
        shared_slots=mix.shared_slots,
    ) as fleet:
        try:
            campaign(fleet, seed, arguments.minutes, mix, stop_early=arguments.stop_early)
            found = fleet.check()
        finally:
            fleet.history.write(keep / "history.jsonl")
        report(fleet, found, time.monotonic() - began)
    if found or arguments.keep is not None:
        say(f"kept in {keep}")
    else:
        shutil.rmtree(keep, ignore_errors=True)
    return 1 if found else 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make soak-fleet", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hosts", choices=("reference", "client", "ds01d"), default="ds01d")
    parser.add_argument("--count", type=int, default=5, help="how many hosts")
    parser.add_argument("--mix", choices=sorted(MIXES), default="everything", help="of faults")
    parser.add_argument("--bug", action="append", default=[], help="of the reference host")
    parser.add_argument("--stop-early", action="store_true", help="end at the first violation")
    parser.add_argument("--keep", help="folder for what is found; default: only if there is any")
    return parser.parse_args(words)


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    own_signals()
    sys.exit(main())
