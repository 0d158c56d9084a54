"""Drifts that an event should have told, and only a sweep found: for the metrics, nothing more."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from ds01d.model.containers import Container, Engine
from ds01d.model.drift import DriftKey, GatedDrift
from ds01d.model.primitives import ContainerName
from ds01d.reconcile.reconciler import Report

_MOST: Final = 10_000


class MissedEvents:
    """Hears of events in the stream's thread, judges reports in the worker's.

    A drift counts if its container changed while the stream of events was whole. The event may be
    on its way while the sweep looks, so the sweep after it gives the answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: set[ContainerName] = set()
        self._waiting: frozenset[ContainerName] = frozenset()
        self._engine: Engine | None = None

    def on_events(self, names: frozenset[ContainerName]) -> None:
        """An event told of them."""
        with self._lock:
            if len(self._received) < _MOST:
                self._received |= names

    def count_missed(self, report: Report, known: Collection[DriftKey]) -> int:
        """How many containers with a drift no event told of. `known`: drifts of before, by key."""
        with self._lock:
            heard, self._received = frozenset(self._received), set()
        waiting, before = self._waiting - heard, self._engine
        seen = report.decision.snapshot.docker
        if isinstance(seen, Engine):
            self._engine = seen
        if not report.is_sweep:
            self._waiting = waiting
            return 0
        self._waiting = frozenset()
        if before is not None and isinstance(seen, Engine) and seen.since == before.since:
            new = (one for one in report.drifts if one.drift.key not in known)
            self._waiting = frozenset(_find_changed(new, before, seen)) - heard
        return len(waiting)


def _find_changed(
    drifts: Iterable[GatedDrift], before: Engine, now: Engine
) -> Iterator[ContainerName]:
    """Whose container came, went, started or ended."""
    for name in (one.drift.container for one in drifts):
        if name is not None and _life_state(before.by_name.get(name)) != _life_state(
            now.by_name.get(name)
        ):
            yield name


def _life_state(container: Container | None) -> tuple[str, bool] | None:
    return None if container is None else (container.id, container.state.alive)
