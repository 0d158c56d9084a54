"""The store away for an hour, in a minute: `python -m tests.verification.fleet.away --seconds 60`.

Two hosts with ds01d as it is, with the pauses that it has; one of them in a fleet whose only member
of etcd is frozen, which is the worst of all ways to be away: connections are taken, and nothing
comes. On both somebody books and releases all the time. What it takes is printed beside the other.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from simulation.etcd import EtcdCluster, etcd_cluster
from simulation.etcd_proxy import HostLinks
from simulation.signals import own_signals
from tests.verification.fleet.daemon_host import DaemonHost
from tests.verification.fleet.fleet import QUOTAS
from tests.verification.fleet.keys import HeldKey, parse_key
from tests.verification.fleet.run import say
from tests.verification.fleet.storm import name_container
from tests.verification.fleet.watcher import read_everything

EVERY_S: Final = 0.5
AFTER_S: Final = 60.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True, kw_only=True)
class Figures:
    """Of one host. Seconds of each call; processor time of the daemon and all that it started."""

    host: str
    bookings: list[float] = field(default_factory=list)
    releases: list[float] = field(default_factory=list)
    refused: int = 0
    cpu_s: float = 0.0
    memory_kib: int = 0
    kept: set[str] = field(default_factory=set)


def measure(seconds: float) -> tuple[Figures, Figures, float]:
    """Of the host whose store is away and of the one without; how long the report then took."""
    with ExitStack() as stack:
        cluster = stack.enter_context(etcd_cluster(1))
        links = stack.enter_context(HostLinks([cluster.members[0].client_port]))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ds01-away-")))
        hosts = [
            DaemonHost(
                name,
                folder / name,
                links,
                books_away=True,
                quotas=QUOTAS,
                in_fleet=name == "fleet",
                is_scaled=False,
            )
            for name in ("fleet", "alone")
        ]
        for host in hosts:
            stack.callback(host.close)
            host.start()
        fleet = hosts[0]
        _book_until_reserved(fleet, cluster)
        cluster.members[0].freeze()
        figures = [Figures(host=host.name) for host in hosts]
        before = [_read_cpu(host) for host in hosts]
        ends = time.monotonic() + seconds
        number = 0
        while time.monotonic() < ends:
            number += 1
            for host, one in zip(hosts, figures, strict=True):
                _use(host, one, number)
            time.sleep(EVERY_S)
        for host, one, cpu_s in zip(hosts, figures, before, strict=True):
            one.cpu_s = _read_cpu(host) - cpu_s
            one.memory_kib = _read_memory(host)
        cluster.members[0].thaw()
        began = time.monotonic()
        _wait_reported(fleet, cluster)
        return figures[0], figures[1], time.monotonic() - began


def _book_until_reserved(host: DaemonHost, cluster: EtcdCluster) -> None:
    """Until the host takes part: one booking of it is in the store, and is released."""
    assert host.book("daemon", name_container("first", "daemon"), 1).outcome == "granted"
    _wait_reported(host, cluster)
    assert host.release(name_container("first", "daemon"))
    _wait_reported(host, cluster)


def _use(host: DaemonHost, figures: Figures, number: int) -> None:
    """Book; release what was booked two turns before."""
    user = [*QUOTAS][number % len(QUOTAS)]
    name = name_container(f"train{number}", user)
    began = time.monotonic()
    answer = host.book(user, name, 1)
    figures.bookings.append(time.monotonic() - began)
    if answer.outcome != "granted":
        figures.refused += 1
    else:
        figures.kept.add(name)
    if number > 2:
        user = [*QUOTAS][(number - 2) % len(QUOTAS)]
        name = name_container(f"train{number - 2}", user)
        began = time.monotonic()
        assert host.release(name) or name not in figures.kept
        figures.releases.append(time.monotonic() - began)
        figures.kept.discard(name)


def _wait_reported(host: DaemonHost, cluster: EtcdCluster) -> None:
    ends = time.monotonic() + AFTER_S
    while (left := _find_difference(host, cluster)) and time.monotonic() < ends:
        time.sleep(0.1)
    assert not left, left


def _find_difference(host: DaemonHost, cluster: EtcdCluster) -> set[str]:
    rows = read_everything(cluster.members[0].client_port)
    held = {
        value["container"]
        for key, value in rows.items()
        if isinstance(parse_key(key), HeldKey) and value["phase"] == "held"
    }
    return held ^ (host.read_books() or {}).keys()


def _read_cpu(host: DaemonHost) -> float:
    assert host.pid is not None
    # The name of a process may have blanks and brackets; what follows its last one has none.
    stat = Path(f"/proc/{host.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, stat[11:15])) / _TICKS


def _read_memory(host: DaemonHost) -> int:
    lines = Path(f"/proc/{host.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args(words)
    away, alone, reported = measure(arguments.seconds)
    say("| | store away | without a fleet |", "|---|---|---|")
    for name, show in (
        ("bookings", lambda one: len(one.bookings)),
        ("refused", lambda one: one.refused),
        ("longest booking", lambda one: f"{1000 * max(one.bookings):.0f} ms"),
        (
            "median booking",
            lambda one: f"{1000 * sorted(one.bookings)[len(one.bookings) // 2]:.0f} ms",
        ),
        ("releases", lambda one: len(one.releases)),
        ("longest release", lambda one: f"{1000 * max(one.releases):.0f} ms"),
        ("processor time", lambda one: f"{one.cpu_s:.2f} s"),
        ("memory", lambda one: f"{one.memory_kib / 1024:.1f} MiB"),
    ):
        say(f"| {name} | {show(away)} | {show(alone)} |")
    say(f"all bookings of now reported {reported:.1f} s after the store came back")
    return 0


if __name__ == "__main__":
    own_signals()
    sys.exit(main())
