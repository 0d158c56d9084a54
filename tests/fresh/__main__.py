"""Pristine Debian 12 and 13, each from the clone to the purged package; as root.

    make test-fresh                                          (half an hour on two cores)
    make test-fresh ARGS='--machine trixie --command demo package'
    make test-fresh ARGS='--usual --command test'            (not as just booted, umask 022, …)
    make test-fresh ARGS=--renew                             (make the pristine systems anew)

What is tested is the last commit: it is cloned. Systems, logs and packages stay in .cache/fresh;
machines do not stay, whatever happens.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from simulation.cache import locked
from simulation.machine import missing
from tests.fresh.roots import SUITES, place, pristine, remove_leftovers
from tests.fresh.rounds import COMMANDS, Rounds, Row
from tests.fresh.sessions import ADVERSE, USUAL
from tests.support.daemon import ROOT


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """Run what is asked for and print the table; 1 if anything failed."""
    arguments = _parser().parse_args(words)
    if reason := missing():
        say(f"make test-fresh: {reason}")
        return 1
    if subprocess.run(("git", "diff", "--quiet", "HEAD"), cwd=ROOT, check=False).returncode:
        say("what is not committed is not tested")
    began = time.monotonic()
    conditions = USUAL if arguments.usual else ADVERSE
    rows: list[Row] = []
    failures = []
    for suite in arguments.machine:
        with locked(place(suite)):
            remove_leftovers(suite)
            pristine(suite, renew=arguments.renew)
            failures += _play(Rounds(suite, conditions), arguments.command, rows)
    say("", *table(rows), "", f"total {time.monotonic() - began:.0f} s", *failures)
    return int(bool(failures) or not all(row.outcome.passed for row in rows))


def _play(rounds: Rounds, commands: Sequence[str], rows: list[Row]) -> list[str]:
    """Run them, show and append each row; gives what kept a machine from its commands."""
    try:
        for row in rounds.play(commands):
            say(_line(row))
            rows.append(row)
    except (OSError, RuntimeError, LookupError, subprocess.SubprocessError) as error:
        return [f"{rounds.machine}: {error}"]
    return []


def table(rows: Sequence[Row]) -> list[str]:
    """Machine × command, with result and duration, as Markdown."""
    head = ["| machine | command | result | s | |", "|---|---|---|--:|---|"]
    return head + [f"| {' | '.join(_cells(row))} |" for row in rows]


def _line(row: Row) -> str:
    return "  ".join(_cells(row)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    result = "passed" if row.outcome.passed else "FAILED"
    return (row.machine, row.command, result, f"{row.outcome.duration_s:.0f}", row.detail)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make test-fresh", description=__doc__)
    add = parser.add_argument
    add("--machine", nargs="+", choices=tuple(SUITES), default=tuple(SUITES))
    add("--command", nargs="+", choices=COMMANDS, default=COMMANDS)
    add("--usual", action="store_true", help="none of the adverse conditions")
    add("--renew", action="store_true", help="make the pristine systems anew")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
