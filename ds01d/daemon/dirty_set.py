"""The dirty set: the container names that the next pass has to look at, as a work queue.

It carries names, never reasons. Marking is idempotent; a name that is marked during its pass gets
another one. A failed name is marked again with growing delay, through `later`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

from ds01d.model.primitives import ContainerName

FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 300.0
MOST_AT_ONCE: Final = 200
"""Names in one pass (decision 59): a sweep or a new event waits until it ends."""


class All(Enum):
    """The mark of a sweep."""

    EVERYTHING = "*"


EVERYTHING: Final = All.EVERYTHING
Names = frozenset[ContainerName] | All
Later = Callable[[str, float, Names], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one pass has to look at."""

    everything: bool
    names: frozenset[ContainerName]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """For the metrics. `running_s`: how long the current pass has been running, else 0."""

    depth: int
    adds: int
    retries: int
    running_s: float


class DirtySet:
    """Many threads mark; one worker takes, then calls `mark_done` or `retry_all`."""

    def __init__(
        self,
        later: Later,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        most: int = MOST_AT_ONCE,
    ) -> None:
        """`later(key, delay_s, names)` has to mark `names` after the delay, once for each key.

        `most`: names that one `take` gives at most, except in a sweep.
        """
        self._later = later
        self._clock = clock
        self._random = chance
        self._most = most
        self._changed = threading.Condition()
        self._dirty: dict[ContainerName | All, None] = {}  # the longest dirty first
        self._failures: dict[ContainerName | All, int] = {}
        self._began_at: float | None = None
        self._closed = self._woken = False
        self._adds = self._retries = 0

    def mark(self, names: Iterable[ContainerName] | All) -> None:
        """Put `names` on the next pass. Does nothing after `close`."""
        with self._changed:
            if self._closed:
                return
            # A name that is dirty already keeps its place: it has waited the longest.
            self._dirty.update(dict.fromkeys((names,) if isinstance(names, All) else names))
            self._adds += 1
            self._changed.notify()

    def take(self, timeout_s: float) -> Work | None:
        """Wait for work and take it: all of it for a sweep, else the longest dirty names.

        None after the timeout, after `wake`, or once closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._dirty or self._closed or self._woken, timeout_s)
            self._woken = False
            if self._closed or not self._dirty:
                return None
            # Decision 59: a sweep looks at everything, so it takes all marks; a pass over names is
            # bounded.
            everything = EVERYTHING in self._dirty
            dirty = [*islice(self._dirty, None if everything else self._most)]
            # Unmarked before the pass and not after it: what is marked during the pass needs
            # another one.
            for mark in dirty:
                del self._dirty[mark]
            self._began_at = self._clock()
        names = frozenset(name for name in dirty if not isinstance(name, All))
        return Work(everything=everything, names=names)

    def wake(self) -> None:
        """End the wait of `take`: there is something else to do than a pass."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def mark_done(self, work: Work, failed: frozenset[ContainerName] = frozenset()) -> None:
        """End a pass; the names in `failed` are marked again later."""
        with self._changed:
            self._began_at = None
            # Success forgets the failures: the next one begins with the shortest delay again.
            self._failures = {
                name: times
                for name, times in self._failures.items()
                if name in failed or not (work.everything or name in work.names)
            }
        self._retry_later(failed)

    def retry_all(self) -> None:
        """End a pass that failed as a whole; everything is marked again later."""
        with self._changed:
            self._began_at = None
        self._retry_later({EVERYTHING})

    def close(self) -> None:
        """Stop the queue: from now on `take` gives None at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def counters(self) -> Counters:
        with self._changed:
            running = 0.0 if self._began_at is None else self._clock() - self._began_at
            return Counters(
                depth=len(self._dirty), adds=self._adds, retries=self._retries, running_s=running
            )

    def _retry_later(self, names: Iterable[ContainerName | All]) -> None:
        delays: dict[ContainerName | All, float] = {}
        with self._changed:
            for name in names:
                times = self._failures[name] = self._failures.get(name, 0) + 1
                full = min(FIRST_DELAY_S * 2.0 ** min(times - 1, 30), LONGEST_DELAY_S)
                # With jitter: names that failed together must not all come back in one pass.
                delays[name] = full * (0.75 + self._random() / 4)
            self._retries += len(delays)
        # Outside of the lock: `later` may mark at once.
        for name, delay_s in delays.items():
            if isinstance(name, All):
                self._later(f"retry {name.value}", delay_s, name)
            else:
                self._later(f"retry {name}", delay_s, frozenset({name}))
