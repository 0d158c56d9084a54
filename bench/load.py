"""Ten thousand containers and a thousand events a second for a minute: `make load`, or --help.

The engine is the fake one, in a process of its own: random containers start, end and pause, some
booked ones are removed. Meanwhile the daemon is sent SIGHUP every few seconds and its metrics are
read. Afterwards every removed container has to be released, every other booking to be there, and
every event to have been received. Exit code 1 if something is lost or a target is missed.
"""

import argparse
import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

# In the place of this folder, where `bench` would be this file.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402 - see above

from bench.daemon import Answer, Daemon, memory  # noqa: E402
from bench.figures import Figure, table  # noqa: E402
from bench.host import Host, host  # noqa: E402
from simulation.ports import find_free_port  # noqa: E402
from simulation.signals import own_signals  # noqa: E402

ANSWER_TARGET_S: Final = 2.0
SIGHUP_EVERY_S: Final = 7.0
PATIENCE_S: Final = 300.0
MIB: Final = 1 << 20


@dataclass(slots=True, kw_only=True)
class Watched:
    """What was seen of the daemon during the storm. Memory in bytes, times in seconds."""

    rss: list[int] = field(default_factory=list)
    depths: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if nothing was lost and every target is met."""
    options = _options(arguments)
    began = {"command": " ".join(["bench/load.py", *sys.argv[1:]]), "processors": os.cpu_count()}
    print("\n".join(f"{key}: {value}" for key, value in began.items()), flush=True)
    with host(options.containers) as there:
        figures = list(_measured(there, options))
    print("\n".join(["", *table(figures)]))
    return int(any(figure.met is False for figure in figures))


def _measured(there: Host, options: argparse.Namespace) -> Iterator[Figure]:
    size = len(there.names)
    port = find_free_port()
    with there.config.open("a", encoding="utf-8") as config:
        config.write(f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
    url = f"http://127.0.0.1:{port}/metrics"
    booked = _booked(there)

    def one(name: str, value: float, unit: str, target: float | None = None) -> Figure:
        return Figure(name=name, containers=size, value=value, unit=unit, target=target)

    with Daemon(there) as daemon:
        daemon.sweep()
        before, at_start = memory(daemon.pid).rss, _metrics(url)
        query = {"rate": options.rate, "seconds": options.seconds, "removals": options.removals}
        with _watching(daemon, url) as seen:
            began = time.monotonic()
            storm = _storm(there, query)
            while not storm["over"]:
                time.sleep(0.5)
                storm = _storm(there)
            lasted = time.monotonic() - began
            left = _waited_for(there, set(storm["removed"]))
            calm = time.monotonic() - began - lasted
        drifts = _drifts_left(daemon)
        steady = time.monotonic() - began - lasted
        at_end = _metrics(url)
        after = memory(daemon.pid).rss

    received = at_end["ds01d_events_received_total"] - at_start["ds01d_events_received_total"]
    gone = booked - _booked(there)
    yield one("events emitted", storm["events"], "")
    yield one("  a second", storm["events"] / lasted, "/s")
    yield one("  lost on the way", max(0.0, storm["events"] - received), "", 1)
    yield one("bookings of removed containers", len(storm["removed"]), "")
    yield one("  not released", len(left), "", 1)
    yield one("  released of others", len(gone - set(storm["removed"])), "", 1)
    yield one("  until the last was released", calm, "s")
    yield one("drifts left", drifts, "", 1)
    yield one("  until the last was settled", steady, "s")
    yield one("queue, most names", max(seen.depths), "", size + 1)
    heard = [answer.heard_s for answer in seen.answers]
    swept = [answer.swept_s for answer in seen.answers]
    yield one("SIGHUPs", len(seen.answers), "")
    yield one("  until it is in the journal, slowest", max(heard), "s", ANSWER_TARGET_S)
    yield one("  until the new sweep's end, median", median(swept), "s", ANSWER_TARGET_S)
    yield one("  until the new sweep's end, slowest", max(swept), "s")
    yield one("memory before, RSS", before / MIB, "MiB")
    yield one("  most during", max(seen.rss) / MIB, "MiB", 1.5 * before / MIB)
    yield one("  after", after / MIB, "MiB", 1.5 * before / MIB)


@contextmanager
def _watching(daemon: Daemon, url: str) -> Iterator[Watched]:
    """Read its memory and its queue all the time, and send SIGHUP now and then."""
    seen, over = Watched(), threading.Event()

    def look() -> None:
        next_signal = time.monotonic() + SIGHUP_EVERY_S / 2
        while not over.wait(0.25):
            seen.rss.append(memory(daemon.pid).rss)
            seen.depths.append(_metrics(url)["ds01d_workqueue_depth"])
            if time.monotonic() >= next_signal:
                seen.answers.append(daemon.sweep())
                next_signal = time.monotonic() + SIGHUP_EVERY_S

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _waited_for(there: Host, removed: set[str]) -> set[str]:
    """Wait until none of the removed is booked any more; gives those that still are."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := removed & _booked(there)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _drifts_left(daemon: Daemon) -> int:
    """How many drifts are left after a sweep that finds none, or when patience is over."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        daemon.sweep()
        left = daemon.open_drifts()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(1.0)


def _booked(there: Host) -> set[str]:
    slots = json.loads(there.state.read_bytes())["gpus"].values()
    return {name for slot in slots for name in slot["containers"]}


def _metrics(url: str) -> dict[str, float]:
    """Read the samples without labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - ours, on loopback
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {one.name: one.value for family in families for one in family.samples if not one.labels}


def _storm(there: Host, query: dict[str, float] | None = None) -> dict[str, Any]:
    """Ask the fake engine for its storm, or have it begin one."""
    client: Any = there.client
    answer = client._get(f"{client.base_url}/storm", params=query or {})  # noqa: SLF001 - no SDK
    answer.raise_for_status()
    return dict(answer.json())


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Whether ds01d keeps up with a storm of events.")
    parser.add_argument("--containers", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1_000, help="events a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--removals", type=int, default=300, help="booked containers removed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    own_signals()
    sys.exit(main())
