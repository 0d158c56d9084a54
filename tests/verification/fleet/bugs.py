"""Bugs of a fleet, planted one at a time; the campaign has to catch each.

    make soak-fleet-bugs           all of them (half a minute each); ARGS=fence: those so named

Each has a mix of faults under which it would show, and the same mix has to pass without it. They
are mistakes of the reference host, which makes them on demand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Final

from tests.support.daemon import ROOT
from tests.verification.fleet import reference_store as reference
from tests.verification.fleet.run import say

MINUTES: Final = 2.0
REFERENCE: Final[Mapping[str, str]] = {
    reference.NO_FENCE: "races",
    reference.NO_ID: "late requests",
    reference.STALE_COUNT: "races",
    reference.NO_LEADER: "no leader",
    reference.LEASE_DEAD: "silence",
    reference.WITHDRAW_UNREADABLE: "books",
    reference.UNDER_LOCK: "locks",
    reference.NO_RESTORE: "backups",
    reference.NO_NAME: "races",
}
"""Each bug, and the mix of faults for it."""


def main(words: Sequence[str] | None = None) -> int:
    """Plant each; how many were not caught."""
    parser = argparse.ArgumentParser(
        prog="make soak-fleet-bugs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--clean", action="store_true", help="the same mixes without a bug, too")
    parser.add_argument("names", nargs="*", help="only bugs whose names have one of these words")
    arguments = parser.parse_args(words)
    escaped = 0
    say("| planted bug | faults | caught as | after |", "|---|---|---|---|")
    for name, mix in REFERENCE.items():
        if arguments.names and not any(word in name for word in arguments.names):
            continue
        if arguments.clean and (found := run(mix, [], arguments.seed, arguments.minutes)[0]):
            say(f"| (none) | {mix} | {', '.join(found)} | |")
            escaped += 1
        found, seconds = run(mix, ["--bug", name], arguments.seed, arguments.minutes)
        escaped += not found
        say(f"| {name} | {mix} | {', '.join(found) or 'NOT CAUGHT'} | {seconds:.0f} s |")
    return escaped


def run(mix: str, options: Sequence[str], seed: int, minutes: float) -> tuple[list[str], float]:
    """A campaign until something is found: the kinds, and after how long."""
    command = [sys.executable, "-m", "tests.verification.fleet.run", "--stop-early", "--mix", mix]
    command += ["--seed", str(seed), "--minutes", str(minutes), *options]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ds01-fleet-bug-") as keep:
        done = subprocess.run(
            [*command, "--keep", keep], cwd=ROOT, capture_output=True, text=True, check=False
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION ")]
    kinds = dict.fromkeys(line.removeprefix("VIOLATION ").partition(":")[0] for line in lines)
    if bool(done.returncode) is not bool(kinds):
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return list(kinds), time.monotonic() - began


if __name__ == "__main__":
    sys.exit(min(main(), 1))
