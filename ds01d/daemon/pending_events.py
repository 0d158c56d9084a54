"""Docker's events that wait for a wrapper's line: the stream's thread adds, the worker takes.

Each event is taken once, however often the stream repeats it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from ds01d.daemon.logged_lines import add_bounded
from ds01d.daemon.missed_events import WAIT_S, Labels
from ds01d.decide.event_lines import ContainerEvent
from ds01d.model.primitives import Boot, ContainerName, Wall

QUICK_S: Final = 0.3
"""By then a wrapper has mostly logged what it did."""
_MAX_PENDING: Final = 10_000


@dataclass(slots=True)
class PendingEvent:
    """`is_followed`: the next event of its container came, so nobody logs this one any more."""

    received_at: Boot
    event: ContainerEvent
    labels: Labels
    is_followed: bool = False


class PendingEvents:
    """A bounded queue, in the order in which the events came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[PendingEvent] = []
        self._last: dict[ContainerName, PendingEvent] = {}
        self._is_urgent = False
        self._received_ids: OrderedDict[str, None] = OrderedDict()
        self._dropped = 0

    def add(self, pending: PendingEvent) -> None:
        """Queue an event; the one before it of the same container is due now."""
        event = pending.event
        with self._lock:
            if event.identity in self._received_ids:
                return
            add_bounded(self._received_ids, event.identity, None)
            if len(self._events) >= _MAX_PENDING:
                self._dropped += 1
                return
            # A wrapper logs before anything else happens to its container.
            if (before := self._last.get(event.name)) is not None:
                before.is_followed = self._is_urgent = True
            self._last[event.name] = pending
            self._events.append(pending)

    def next_due(self) -> float:
        """When the first event is due, on CLOCK_BOOTTIME."""
        with self._lock:
            if self._is_urgent:
                return -inf
            return self._events[0].received_at + WAIT_S if self._events else inf

    def list_names(self) -> frozenset[ContainerName]:
        with self._lock:
            return frozenset(pending.event.name for pending in self._events)

    def list_all(self) -> tuple[PendingEvent, ...]:
        """The events so far; they count as looked at."""
        with self._lock:
            self._is_urgent = False
            return tuple(self._events)

    def remove(self, identities: Collection[str], among: int) -> None:
        """Remove events of the first `among`; later ones came while those were written."""
        with self._lock:
            left = [p for p in self._events[:among] if p.event.identity not in identities]
            self._events = left + self._events[among:]
            self._last = {pending.event.name: pending for pending in self._events}

    def take_dropped(self) -> int:
        """How many events found no room since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped


def select_due(
    waiting: Sequence[PendingEvent], now: Boot, wait_s: float, about: ContainerName | None
) -> list[PendingEvent]:
    """The events whose line is due, oldest first, with the older ones of other containers.

    Not those received just now: their wrappers are about to log them.
    """

    def is_due(pending: PendingEvent) -> bool:
        return (
            wait_s == inf
            or now >= pending.received_at + wait_s
            or pending.is_followed
            or pending.event.name == about
        )

    # Decision 120: lines never go back in time, so what happened before the newest due event goes
    # with it.
    newest = max((p.event.at for p in waiting if is_due(p)), default=Wall(0.0))
    ripe = [
        pending
        for pending in waiting
        if is_due(pending) or (pending.event.at <= newest and now >= pending.received_at + QUICK_S)
    ]
    return sorted(ripe, key=lambda pending: pending.event.at)
