"""Counts drifts of containers whose change no event announced; for the metrics alone."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from ds01d.model.containers import Container, Engine
from ds01d.model.drift import DriftKey, GatedDrift
from ds01d.model.primitives import ContainerName
from ds01d.reconcile.report import Report

_MOST: Final = 10_000


class MissedEvents:
    """Notes events in the stream's thread, counts in the worker's.

    A drift counts if its container changed while the event stream had no gap. The event may still
    be on its way when the sweep looks, so the next sweep decides.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: set[ContainerName] = set()
        self._waiting: frozenset[ContainerName] = frozenset()
        self._engine: Engine | None = None

    def on_events(self, names: frozenset[ContainerName]) -> None:
        """Note the containers of events."""
        with self._lock:
            if len(self._received) < _MOST:
                self._received |= names

    def count_missed(self, report: Report, open_keys: Collection[DriftKey]) -> int:
        """How many containers have a drift without an event. `open_keys`: drifts of before."""
        with self._lock:
            received, self._received = frozenset(self._received), set()
        waiting, before = self._waiting - received, self._engine
        engine = report.decision.snapshot.docker
        if isinstance(engine, Engine):
            self._engine = engine
        if not report.is_sweep:
            self._waiting = waiting
            return 0
        self._waiting = frozenset()
        # In a gap of the stream events are missing by nature: nothing was promised for it.
        if before is not None and isinstance(engine, Engine) and engine.since == before.since:
            new = (gated for gated in report.drifts if gated.drift.key not in open_keys)
            self._waiting = frozenset(_find_changed(new, before, engine)) - received
        return len(waiting)


def _find_changed(
    drifts: Iterable[GatedDrift], before: Engine, now: Engine
) -> Iterator[ContainerName]:
    """Whose container came, went, started or ended."""
    for name in (gated.drift.container for gated in drifts):
        if name is not None and _life_state(before.by_name.get(name)) != _life_state(
            now.by_name.get(name)
        ):
            yield name


def _life_state(container: Container | None) -> tuple[str, bool] | None:
    return None if container is None else (container.id, container.state.alive)
