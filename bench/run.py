"""Measures at each size, prints the table, writes the JSON. `main` is the command."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from bench import bookings, features, releases, service, sweeps, web
from bench.daemon import LIBRARIES, ROOT, WORKER_LIBRARIES, Bare, Daemon, bare, cpu_s, memory
from bench.figures import Figure, median, table, write_docs, write_json
from bench.host import GPUS, MIGS, REAL, Host, host, root_filesystem
from simulation.cache import cache

DOCS: Final = ROOT / "docs" / "performance.md"
SWEEP_EVERY_S: Final = 60.0
MIB: Final = 1 << 20
WEB_CONTAINERS: Final = REAL + 1
"""On the fake engine, which is there sooner: readers ask nothing of Docker."""
BUSY: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How often and how long."""

    sizes: tuple[int, ...]
    sweeps: int
    releases: int
    bookings: int
    idle_s: float
    starts: int
    service_s: float
    web_s: float
    features_s: float


FULL: Final = Effort(
    sizes=(10, 100, 1_000, 10_000),
    sweeps=30,
    releases=120,
    bookings=20,
    idle_s=30,
    starts=5,
    service_s=600,
    web_s=90,
    features_s=300,
)
QUICK: Final = Effort(
    sizes=(10, 100),
    sweeps=10,
    releases=30,
    bookings=7,
    idle_s=10,
    starts=2,
    service_s=60,
    web_s=30,
    features_s=75,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if every target is met, else 1."""
    options = _options(arguments)
    base = QUICK if options.quick else FULL
    is_part = options.service or options.web or options.features
    effort = replace(base, sizes=() if is_part else options.sizes or base.sizes)
    facts = _facts()
    head = [f"{key}: {value}" for key, value in facts.items()]
    print("\n".join(head), flush=True)
    if os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
        print("WARNING: this machine is busy; what follows means little.", file=sys.stderr)
    found: list[Figure] = []
    for size in effort.sizes:
        _say(f"{size:,} containers: making the host")
        with host(size) as there:
            found += (_commands if options.commands else _measured)(there, effort)
    is_whole = not is_part and not options.commands
    if is_whole or options.web:
        _say(f"the web page with {WEB_CONTAINERS:,} containers")
        with host(WEB_CONTAINERS) as there:
            found += web.figures(there, effort.web_s)
    if is_whole or options.features:
        for size in (options.sizes if is_part else None) or (features.CONTAINERS,):
            _say(f"all options on and off with {size:,} containers")
            with host(size) as there:
                floor = bare(LIBRARIES, effort.idle_s)
                found += features.figures(there, effort.features_s, floor)
    if is_whole or options.service:
        _say(f"the service with {service.CONTAINERS} containers")
        with host(service.CONTAINERS) as there:
            found += service.figures(there, effort.service_s, bare(LIBRARIES, effort.idle_s))
    facts["load at the end"] = _load()
    lines = [*head, f"load at the end: {facts['load at the end']}", "", *table(found)]
    print("\n".join(["", *lines[len(head) :]]))
    write_json(options.json, facts, found)
    print(f"\n{options.json}")
    if options.write_docs:
        write_docs(DOCS, lines)
    return int(any(figure.met is False for figure in found))


def _measured(there: Host, effort: Effort) -> Iterator[Figure]:
    size = len(there.names)
    floor = bare(LIBRARIES, effort.idle_s)
    starts = [bare(LIBRARIES, 0.0).seconds for _ in range(effort.starts)]

    _say("  a first start")
    with Daemon(there) as daemon:
        pass
    yield _figure("READY, first start", size, daemon.ready_s, "s", median(starts))

    _say("  restarts")
    restarts = []
    for _ in range(effort.starts):
        with Daemon(there) as daemon:
            restarts.append(daemon.ready_s)
    target = 2.0 if size <= REAL else None
    yield _figure("READY, restart", size, median(restarts), "s", median(starts), target)

    _say("  sweeps")
    yield from sweeps.figures(there, *sweeps.sweeps(there, effort.sweeps))

    yield from _commands(there, effort)

    with Daemon(there) as daemon:
        yield from _resident(daemon, floor)
        yield from _idle(daemon, floor, effort)
        _say("  releases")
        yield from releases.figures(size, releases.releases(there, effort.releases))


def _commands(there: Host, effort: Effort) -> Iterator[Figure]:
    _say("  commands")
    with Daemon(there) as daemon:
        yield from bookings.figures(there, daemon.pid, effort.bookings)


def _resident(daemon: Daemon, floor: Bare) -> Iterator[Figure]:
    _say("  memory")
    size = len(daemon.host.names)
    for _ in range(5):
        daemon.sweep()
    assert not daemon.open_drifts()
    ours, worker = memory(daemon.pid), memory(daemon.worker)
    target = 64.0 if size <= REAL else None
    yield _figure("memory, RSS", size, ours.rss / MIB, "MiB", floor.rss / MIB, target)
    yield _figure("  PSS", size, ours.pss / MIB, "MiB")
    smallest = bare(WORKER_LIBRARIES, 0.0).rss
    yield _figure("  NVML worker, RSS", size, worker.rss / MIB, "MiB", smallest / MIB)


def _idle(daemon: Daemon, floor: Bare, effort: Effort) -> Iterator[Figure]:
    """Idle: between two sweeps, and with what a sweep takes spread over the interval."""
    _say("  idle")
    size = len(daemon.host.names)
    daemon.sweep()

    def spent() -> float:
        return cpu_s(daemon.pid) + cpu_s(daemon.worker)

    costs = []
    for _ in range(2):
        time.sleep(releases.SETTLE_S + 0.5)  # until the last NVML sample is too old
        before = spent()
        daemon.sweep()
        time.sleep(0.5)  # the NVML process closes what it opened
        costs.append(spent() - before)
    swept, before, began = daemon.swept_at(), spent(), time.monotonic()
    time.sleep(effort.idle_s)
    used, lasted = spent() - before, time.monotonic() - began
    if daemon.swept_at() != swept:  # one fell into this time
        used = max(0.0, used - median(costs))
    between = used / lasted
    whole = between + median(costs) / SWEEP_EVERY_S
    target = 0.2 if size <= REAL else None
    yield _figure("idle, a sweep each 60 s", size, 100 * whole, "% core", 100 * floor.idle, target)
    yield _figure("  between sweeps", size, 100 * between, "% core", 100 * floor.idle)
    yield _figure("  processor time of a sweep", size, 1e3 * median(costs), "ms")


def _figure(  # noqa: PLR0917 - a row of the table, from left to right
    name: str,
    size: int,
    value: float,
    unit: str,
    floor: float | None = None,
    target: float | None = None,
) -> Figure:
    return Figure(name=name, containers=size, value=value, unit=unit, floor=floor, target=target)


def _facts() -> dict[str, object]:
    return {
        "command": " ".join(["bench/bench.py", *sys.argv[1:]]),
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "storage": root_filesystem(),
        "slots": f"{GPUS} GPUs of {MIGS} MIG devices, simulated; {GPUS * MIGS} slots, shared",
        "engine": f"a private dockerd up to {REAL:,} containers, a fake one above",
        "load at the start": _load(),
    }


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _say(text: str) -> None:
    if sys.stderr.isatty() or os.environ.get("BENCH_VERBOSE"):
        print(text, file=sys.stderr, flush=True)


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if min(sizes) < 2:
        raise ValueError
    return sizes


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What ds01d costs, beside the machine's floor.")
    parser.add_argument("--sizes", type=_sizes, help="numbers of containers, like 10,100")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: for a glance")
    parser.add_argument(
        "--service", action="store_true", help="only the service, left alone for ten minutes"
    )
    parser.add_argument("--web", action="store_true", help="only the web page and its readers")
    parser.add_argument(
        "--features",
        action="store_true",
        help="only memory and idle time with all options on, beside all of them off",
    )
    parser.add_argument("--commands", action="store_true", help="only the commands")
    parser.add_argument("--json", type=Path, default=cache("bench") / "bench.json")
    parser.add_argument("--write-docs", action="store_true", help=f"also into {DOCS.name}")
    return parser.parse_args(arguments)
