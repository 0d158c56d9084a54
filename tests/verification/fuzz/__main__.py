"""Fuzz the parsers: `make fuzz` (two minutes each), or `make fuzz SECONDS=20 ARGS='state limits'`.

Each target runs in a process of its own under libFuzzer, which ends it at a finding: an error that
is none of ours, an answer that takes more than 5 s, or more than 512 MiB. The corpus is minimised
and kept; an input that led to a finding is written to .cache/fuzz/ and named.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.verification.fuzz import corpus
from tests.verification.fuzz.targets import ROOT, TARGETS, Target

SLOWEST_S: Final = 5
MOST_MIB: Final = 512
LONGEST: Final = 16 << 10
FINDINGS: Final = ROOT / ".cache" / "fuzz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one target. `finding`: the end of what libFuzzer printed; "" for none."""

    target: str
    inputs: int
    edges: int
    mib: int
    kept: int
    finding: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the named targets, all of them by default; 1 if one has a finding."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the parsers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=" ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=120, help="for each target (120)")
    asked = parser.parse_args(arguments)
    unknown = set(asked.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {' '.join(TARGETS)}")
    targets = [TARGETS[name] for name in asked.targets or TARGETS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(lambda target: _fuzz(target, asked.seconds), targets))
    _print(outcomes, asked.seconds)
    return any(outcome.finding for outcome in outcomes)


def _fuzz(target: Target, seconds: int) -> Outcome:
    FINDINGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ds01d-fuzz-") as scratch:
        start, grown, least = (Path(scratch) / name for name in ("start", "grown", "least"))
        for folder in (start, grown, least):
            folder.mkdir()
        for number, data in enumerate([*target.seeds(), *corpus.load(target)]):
            (start / str(number)).write_bytes(data)
        words = Path(scratch) / "words"
        words.write_text(_dictionary(target), encoding="ascii")
        run = _run(target, f"-max_total_time={seconds}", f"-dict={words}", str(grown), str(start))
        if run.returncode == 0:
            merged = _run(target, "-merge=1", str(least), str(grown), str(start))
            if merged.returncode == 0:
                corpus.save(target, (one.read_bytes() for one in least.iterdir()))
        return Outcome(
            target=target.name,
            inputs=_last(r"stat::number_of_executed_units: (\d+)", run.stdout),
            edges=_last(r"\bcov: (\d+)", run.stdout),
            mib=_last(r"stat::peak_rss_mb: +(\d+)", run.stdout),
            kept=len(corpus.load(target)),
            finding=""
            if run.returncode == 0
            else run.stdout[-4000:].partition("=== Uncaught")[2] or run.stdout[-2000:],
        )


def _run(target: Target, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            *("-m", "tests.verification.fuzz.one", target.name),
            f"-timeout={SLOWEST_S}",
            f"-rss_limit_mb={MOST_MIB}",
            f"-max_len={LONGEST}",
            "-print_final_stats=1",
            f"-artifact_prefix={FINDINGS}/{target.name}-",
            *flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
        check=False,
    )


def _dictionary(target: Target) -> str:
    """The words of the seeds, as libFuzzer wants them: it does not guess a key of ten letters."""
    words = {word for seed in target.seeds() for word in re.findall(rb"[\w.:@|=-]{2,40}", seed)}
    words |= {b'"\\ud800"', b"[[[[[[[[", b"null", b"1e999", b"-1", b"NaN", b"\xff", b"\\u0000"}
    return "".join(
        f'"{"".join(f"{chr(92)}x{byte:02X}" for byte in word)}"\n' for word in sorted(words)
    )


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def _print(outcomes: Sequence[Outcome], seconds: int) -> None:
    console = Console()
    table = Table(title=f"{seconds} s for each parser", title_justify="left")
    table.add_column("parser")
    for column in ("inputs tried", "edges reached", "peak MiB", "kept"):
        table.add_column(column, justify="right")
    table.add_column("finding")
    for one in outcomes:
        numbers = (f"{one.inputs:,}", f"{one.edges:,}", f"{one.mib}", f"{one.kept}")
        table.add_row(one.target, *numbers, "YES" if one.finding else "none")
    console.print(table)
    for one in outcomes:
        if one.finding:
            console.print(f"\n{one.target}: its input is in {FINDINGS}\n{one.finding}")


if __name__ == "__main__":
    sys.exit(main())
