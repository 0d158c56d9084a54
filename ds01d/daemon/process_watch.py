"""Watches the processes for which slots are reserved: their end wakes nobody by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from math import inf
from typing import Final

from ds01d.model.books import Record
from ds01d.model.primitives import ContainerName, Unknown
from ds01d.model.reservation import ProcessState, ReservingProcess
from ds01d.model.snapshot import Snapshot

LOOK_EVERY_S: Final = 1.0

FindStates = Callable[[Iterable[ReservingProcess]], Mapping[ReservingProcess, ProcessState]]


class ProcessWatch:
    """Those of the last pass. For the worker's thread."""

    def __init__(self, find_states: FindStates) -> None:
        self._find_states = find_states
        self._running: dict[ContainerName, tuple[ReservingProcess, ...]] = {}
        self._looked_at = -inf

    def set_snapshot(self, snapshot: Snapshot) -> None:
        """Watch the processes that ran in a pass."""
        # Unknown is not empty: the reservations of the last pass are watched further.
        if isinstance(snapshot.metadata, Unknown):
            return
        self._running = {
            name: record.processes
            for name, record in snapshot.metadata.items()
            if isinstance(record, Record)
            and record.processes
            and snapshot.find_process_state(record) is ProcessState.RUNS
        }

    def wait_s(self) -> float:
        """Seconds until the next look; without reservations none is needed."""
        if not self._running:
            return inf
        return max(0.0, self._looked_at + LOOK_EVERY_S - time.monotonic())

    def find_ended(self) -> frozenset[ContainerName]:
        """The names of reservations whose process has ended since, each once."""
        if self.wait_s() > 0:
            return frozenset()
        self._looked_at = time.monotonic()
        # Decision 233: a look costs some reads; pidfd_open would cost a descriptor for each, and
        # a start time to compare all the same after a restart.
        states = self._find_states(chain.from_iterable(self._running.values()))
        ended = frozenset(
            name
            for name, processes in self._running.items()
            if all(states[process] is ProcessState.ENDED for process in processes)
        )
        for name in ended:
            # Each once: from here on the pass over its name decides.
            del self._running[name]
        return ended
