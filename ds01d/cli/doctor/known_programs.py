"""Programs of a lab that cron runs beside ds01d, and what each does to GPUs, containers and books.

A table; `writer_checks` applies it. What a script does counts more than its name: a file that
writes the books is another writer, whatever it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ds01d.model.primitives import Word


class Effect(Word):
    """What a program does, the worst first: of several in one line, the worst counts."""

    KILLS = "kills"  # processes of the users of a GPU
    WRITES = "writes"  # the books
    TAKES_FOLDERS = "takes-folders"  # changes owner and mode of the folders of books and logs
    REDUNDANT = "redundant"  # ds01d does the same, or it does nothing
    CONTAINERS = "containers"  # removes or stops containers, which ds01d follows
    READS = "reads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program by the words of a line that runs it. `why`: for people, "" if the effect says it.

    `fix`: what to do about it, "" if nothing.
    """

    words: re.Pattern[str]
    effect: Effect
    why: str = ""
    fix: str = ""


def _program(words: str, effect: Effect, why: str = "", fix: str = "") -> Program:
    return Program(words=re.compile(words, re.ASCII), effect=effect, why=why, fix=fix)


_REMOVE_LINE: Final = "remove the line: docs/migrating.md"
PROGRAMS: Final = (
    # Decision 235: its versions differ in what they write, and none may run beside ds01d.
    _program(
        "cleanup-stale-gpu|stale[_-]gpu",
        Effect.KILLS,
        "; after a removal it may kill every process on the first GPU and reset it",
        "remove the line, or call reconcile-gpu-state instead: docs/migrating.md",
    ),
    _program(
        r"gpu[_-]allocator|gpu-state(?!-reader)|container-metadata"
        r"|cleanup-stale(?!-containers|-gpu)",
        Effect.WRITES,
        fix="remove the line, or call reconcile-gpu-state instead",
    ),
    _program(
        r"permissions?[-_.]manifest|(?:deploy|apply|fix|set)[-_]permissions",
        Effect.TAKES_FOLDERS,
        "gives /var/lib/ds01 and /var/log/ds01 to a group again and again",
    ),
    _program(
        r"validate[-_]state",
        Effect.REDUNDANT,
        "checks a state that ds01d keeps true; with --fix it fails at each run",
        _REMOVE_LINE,
    ),
    _program(
        r"gpu[-_]queue",
        Effect.REDUNDANT,
        "its notifications never arrive; ds01ctl allocate --wait waits for a GPU",
        _REMOVE_LINE,
    ),
    _program(
        r"cleanup-stale-containers|check-idle-containers|enforce-max-runtime"
        r"|docker\s+(?:container\s+|system\s+)?(?:rm|prune)\b",
        Effect.CONTAINERS,
    ),
    _program(
        r"gpu[-_]state[-_]reader|resource-alert-checker|collect-resource-stats"
        r"|gpu-utilization-monitor|config-watchdog|sync-group-membership|ds01-health-check"
        r"|detect-workloads",
        Effect.READS,
    ),
)
"""Every known program. A line that names none is nobody's here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabAllocator:
    """An allocator of a lab at the path that its callers know.

    `harmless`: what the file contains if it may stay; `ours`: what to put in its place.
    """

    path: Path
    harmless: re.Pattern[bytes]
    problem: str
    ours: str


ALLOCATORS: Final = (
    LabAllocator(
        path=Path("/opt/ds01-infra/scripts/docker/gpu_allocator.py"),
        harmless=re.compile(rb"ds01-allocator|gpu-state\.json\.lock|flock"),
        problem="writes the books without their lock",
        ours="/usr/share/ds01d/gpu_allocator.py",
    ),
    LabAllocator(
        path=Path("/opt/ds01-infra/scripts/docker/gpu_allocator_v2.py"),
        # It takes a lock, but only for itself; what ds01d books it does not know.
        harmless=re.compile(rb"ds01d"),
        problem="is not ds01d's: it reserves nothing, so two callers may get one GPU",
        ours="/usr/share/ds01d/gpu_allocator_v2.py",
    ),
)

WRAPPER: Final = Path("/opt/ds01-infra/scripts/docker/docker-wrapper.sh")
DOCKER_ON_PATH: Final = Path("/usr/local/bin/docker")
RELEASE_UNITS: Final = (
    "ds01-exporter.service",
    "ds01-container-owner-tracker.service",
    "ds01-container-sync.service",
)
"""A release of the lab is rolled back unless these are active."""


def find_program(line: str, programs: Iterable[Program] = PROGRAMS) -> Program | None:
    """The worst program that a line names; None if it names none."""
    order = list(Effect)
    named = (program for program in programs if program.words.search(line))
    return min(named, key=lambda program: order.index(program.effect), default=None)
