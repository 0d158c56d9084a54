"""From the end of the settle time to the released slot on disk, with the daemon as a process.

Booked containers are removed one after the other, as `docker rm -f` does it. The settle time begins
with the engine's own time of the destroy event (`timeNano`); a container counts as released when
the state file does not list it any more. A watch of inotify wakes us at each replaced file, and we
take the time before we read it: good for some tenths of a millisecond on an idle machine.

The pauses between them differ: at a constant pace a settle time would end each time just when
another container is removed, or never. Where there are fewer containers than releases, those that
were released are booked and created again.
"""

import ctypes
import json
import os
import random
import secrets
import select
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import docker

from bench.figures import Figure, median, percentile
from bench.host import REAL, Host

SETTLE_S: Final = 5.0
MEDIAN_TARGET_MS: Final = 10.0
P99_TARGET_MS: Final = 100.0
_BETWEEN_S: Final = (0.3, 0.7)
_PERCENT: Final = 100
"""Of fewer releases the last percent is the slowest one."""
_PATIENCE_S: Final = 30.0
_IN_MOVED_TO: Final = 0x80
_IN_MODIFY: Final = 0x02
_IN_CLOEXEC: Final = 0o2000000


@dataclass(slots=True, kw_only=True)
class Releases:
    """What was measured; seconds. `after`: from the end of the settle time to the disk."""

    after: list[float] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    missing: int = 0


def releases(host: Host, times: int) -> Releases:
    """Remove containers so many times: the last ones created, in turn, but never the first one.

    The floor is measured in between, so that it meets the same disk.
    """
    names = host.names[:0:-1]
    found = Releases()
    size = host.state.stat().st_size
    pauses = random.Random(0)  # noqa: S311 - the same ones in each run
    with closing(_Watch(host.state)) as watch, closing(_Events(host.url)) as events:
        for number in range(times):
            name = names[number % len(names)]
            if number >= len(names):
                watch.wait_for({name})
                host.renew(name)
            pause = pauses.uniform(*_BETWEEN_S)
            time.sleep(pause / 2)
            found.writes.append(_durable_replace(host.root / "lib", size))
            time.sleep(pause / 2)
            watch.waiting.add(name)
            host.client.remove_container(name, force=True)
        watch.wait_for(set(names))
    found.missing = len(watch.waiting)
    for name, moments in watch.released.items():
        for at, (destroyed, heard) in zip(moments, events.destroyed[name], strict=False):
            found.after.append(at - destroyed - SETTLE_S)
            found.arrivals.append(heard - destroyed)
    return found


def figures(count: int, found: Releases) -> Iterator[Figure]:
    """What came of it. The floor: the event's arrival, and one durable replace of that size."""
    if not found.after:
        raise RuntimeError(f"none of {found.missing} removed containers was released")
    times = len(found.after)
    last = "p99" if times >= _PERCENT else f"slowest of {times}"
    for name, share, target in (
        ("median", 0.5, MEDIAN_TARGET_MS),
        (last, 0.99, P99_TARGET_MS),
    ):
        arrival = percentile(found.arrivals, share)
        yield Figure(
            name=f"release after settle, {name}",
            containers=count,
            value=1e3 * percentile(found.after, share),
            unit="ms",
            floor=1e3 * (arrival + percentile(found.writes, share)),
            target=target if count <= REAL else None,
            note=f"{times} releases, {found.missing} not seen",
        )
    yield Figure(
        name="  event's arrival, median",
        containers=count,
        value=1e3 * median(found.arrivals),
        unit="ms",
    )
    yield Figure(
        name="  durable replace, median",
        containers=count,
        value=1e3 * median(found.writes),
        unit="ms",
    )


class _Watch:
    """Sees names leave the state file, in a thread of its own."""

    def __init__(self, state: Path) -> None:
        self.waiting: set[str] = set()
        self.released: dict[str, list[float]] = defaultdict(list)
        self._state = state
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(_IN_CLOEXEC)
        folder = os.fsencode(state.parent)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, folder, _IN_MOVED_TO | _IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, names: set[str]) -> None:
        """Until they have left it, or much longer than they should take."""
        deadline = time.monotonic() + SETTLE_S + _PATIENCE_S
        while not names.isdisjoint(self.waiting) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        while not self._over.is_set():
            if select.select([self._fd], [], [], 0.1)[0]:
                at = time.time()
                if os.fsencode(self._state.name) + b"\0" in os.read(self._fd, 1 << 16):
                    self._look(at)

    def _look(self, at: float) -> None:
        state = json.loads(self._state.read_bytes())
        booked = {name for slot in state["gpus"].values() for name in slot["containers"]}
        for name in self.waiting - booked:
            self.released[name].append(at)
            self.waiting.discard(name)


class _Events:
    """A subscription of our own: name → (the engine's time of a destroy event, when we heard)."""

    def __init__(self, url: str) -> None:
        self.destroyed: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._client = docker.APIClient(base_url=url, version="auto")
        self._stream: Any = self._client.events(decode=True, filters={"event": ["destroy"]})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stream.close()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        for event in self._stream:
            heard = time.time()
            name = event["Actor"]["Attributes"]["name"]
            self.destroyed[name].append((event["timeNano"] / 1e9, heard))


def _durable_replace(folder: Path, size: int) -> float:
    """Write a file beside, sync it, rename it into place, sync the folder; how long that took."""
    target, fresh = folder / "floor", folder / f".floor-{secrets.token_hex(4)}"
    data = os.urandom(size)
    began = time.perf_counter()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    fresh.rename(target)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    return time.perf_counter() - began
