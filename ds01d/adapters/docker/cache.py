"""What is known of Docker's containers between its answers; list and events keep it true.

It makes no call and has no clock. The stream's thread tells it what it heard (`hear`), the worker
what Docker answered; the lock is held for moments only. An event never brings a fact: it says which
container must be inspected again, or that one is gone. Facts come from the list and from inspects.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

from ds01d.adapters.docker.cache_file import CachedContainer, ClockReading, read_kept, write_kept
from ds01d.adapters.docker.list_status import is_confirmed
from ds01d.adapters.docker.parsing import ContainerRow, EngineEvent
from ds01d.model.containers import Container, Destroyed, State, has_ds01_labels
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Source, Unknown

K = TypeVar("K")
V = TypeVar("V")

_MOST = 4096  # of what is gone and only remembered
_LEAVING = frozenset((State.REMOVING, State.DEAD))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The circumstances of a list: when it was asked for, and when it was answered.

    `gapless`: the stream of events has been open without a break since the list before it.
    """

    asked: ClockReading
    answered: ClockReading
    gapless: bool


class DockerCache:
    """Every container, what must be inspected again, and who was destroyed. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[ContainerId, Container] = {}
        self._kept: dict[ContainerId, CachedContainer] = {}
        self._listed: ClockReading | None = None
        self._stale: dict[ContainerId, frozenset[ContainerName]] = {}  # the longest stale first
        self._failed: set[ContainerId] = set()
        self._heard: set[ContainerId] = set()
        self._unheard: set[ContainerId] = set()
        self._ended: dict[ContainerId, None] = {}
        self._destroyed: dict[ContainerName, Destroyed] = {}
        self.received = 0
        self.lost = 0

    # --- from the stream

    def hear(self, event: EngineEvent, at: Boot) -> frozenset[ContainerName]:
        """Take an event in; the names it is about."""
        with self._lock:
            self.received += 1
            before = self._known.get(event.id)
            self._heard.add(event.id)
            self._unheard.discard(event.id)
            if event.action == "destroy":
                self._forget(event.id)
                _remember(self._ended, event.id, None)
                name = event.name or (before.name if before else None)
                if name is not None:
                    labels = event.labels if before is None else before.labels
                    gone = Destroyed(
                        id=event.id, name=name, at=at, labelled=has_ds01_labels(labels)
                    )
                    _remember(self._destroyed, name, gone)
            told = (event.name, event.old_name, before.name if before else None)
            names = frozenset(name for name in told if name is not None)
            if event.action != "destroy" and event.id not in self._ended:
                self._spoil(event.id, names)
                if event.name is not None:
                    self._destroyed.pop(event.name, None)
            return names

    # --- from the list

    def begin_list(self) -> None:
        """A list is about to be asked for: events from now on are newer than it."""
        with self._lock:
            self._heard.clear()

    def take_list(self, rows: Iterable[ContainerRow], listing: Listing) -> int:
        """Replace what is known by the list, keeping the facts that it confirms.

        Gives how many changes the list before showed and the stream has kept silent about.
        """
        with self._lock:
            missed = len(self._unheard) if listing.gapless else 0
            self.lost += missed
            self._unheard.clear()
            away_s = self._away_s(listing)
            asked = (listing.asked.wall, listing.answered.wall)
            before, self._known = self._known, {}
            for row in rows:
                if row.id in self._ended:
                    continue
                known = before.get(row.id) or self._recalled(row)
                if known is None or not _agrees(row, known):
                    if listing.gapless:
                        self._miss(row.id, row.state)
                    self._spoil(row.id, frozenset((row.name,)))
                    known = _uninspected(row)
                elif not (listing.gapless or _lasts(row, known, asked, away_s)):
                    self._spoil(row.id, frozenset((row.name,)))
                self._known[row.id] = known
            for gone in before.keys() - self._known.keys():
                if gone in self._heard:
                    self._known[gone] = before[gone]  # newer than the list
                elif listing.gapless and gone not in self._ended:
                    self._miss(gone, before[gone].state)
            current = self._known.keys() | self._heard
            self._stale = {key: names for key, names in self._stale.items() if key in current}
            self._failed &= current
            self._kept = {}
            self._listed = listing.asked
            return missed

    @property
    def in_doubt(self) -> bool:
        """Whether the last list was ahead of the stream."""
        with self._lock:
            return bool(self._unheard)

    # --- from inspects

    def wanted(self, names: frozenset[ContainerName] | None) -> list[ContainerId]:
        """Who must be inspected before anything is said of `names`; None: all who must be.

        With None also, and last, whoever could not be. Of the others what is known is older than
        what was heard, as if it had not been heard yet.
        """
        with self._lock:
            stale = [
                key
                for key, about in self._stale.items()
                if names is None or not about or not about.isdisjoint(names)
            ]
            again = self._failed - self._stale.keys() if names is None else ()
            return [*sorted(stale, key=self._failed.__contains__), *again]

    def names(self, those: Iterable[ContainerId]) -> frozenset[ContainerName]:
        """The names about which nothing is said before these are inspected."""
        with self._lock:
            return frozenset().union(*(self._stale.get(key, frozenset()) for key in those))

    def begin_inspect(self, container_id: ContainerId) -> None:
        """An inspect is about to be asked for: events from now on are newer than it."""
        with self._lock:
            self._stale.pop(container_id, None)
            self._failed.add(container_id)  # until there is an answer

    def take_inspect(self, container: Container) -> None:
        """Keep a fresh answer, unless the container ended while it was given."""
        with self._lock:
            self._failed.discard(container.id)
            if container.id not in self._ended:
                self._known[container.id] = container

    def take_missing(self, container_id: ContainerId) -> None:
        """The engine says it has no such container."""
        with self._lock:
            self._forget(container_id)

    def take_failure(self, container_id: ContainerId, reason: str) -> bool:
        """The engine would not inspect it: its request is unknown. False if no list had it yet."""
        with self._lock:
            known = self._known.get(container_id)
            if known is not None:
                failure = Unknown(source=Source.DOCKER, reason=reason)
                self._known[container_id] = replace(known, request=failure)
            return known is not None or container_id in self._ended

    # --- to those who ask

    def has(self, container_id: ContainerId) -> bool:
        """Whether a container of this id is known."""
        with self._lock:
            return container_id in self._known

    def answer(
        self,
    ) -> tuple[
        Mapping[ContainerId, Container],
        Mapping[ContainerName, Container],
        Mapping[ContainerName, Destroyed],
    ]:
        """Containers by id and by name, and the names that were destroyed and did not come back."""
        with self._lock:
            by_name = _by_name(self._known.values())
            for name in self._destroyed.keys() & by_name.keys():
                del self._destroyed[name]
            return dict(self._known), by_name, dict(self._destroyed)

    def export(self) -> bytes:
        """What inspects told and a list does not, for the next start."""
        with self._lock:
            if self._listed is None:
                return b""
            return write_kept(self._listed, filter(self._is_fresh, self._known.values()))

    def restore(self, exported: bytes) -> None:
        """Take in an export; whatever makes no sense is as good as none."""
        told = read_kept(exported)
        with self._lock:
            if told is not None and self._listed is None:
                self._listed, self._kept = told

    # --- inside, with the lock held

    def _spoil(self, container_id: ContainerId, names: frozenset[ContainerName]) -> None:
        """It must be inspected again, before anything is said of these names."""
        self._stale[container_id] = self._stale.get(container_id, frozenset()) | names

    def _forget(self, container_id: ContainerId) -> None:
        self._known.pop(container_id, None)
        self._stale.pop(container_id, None)
        self._failed.discard(container_id)

    def _miss(self, container_id: ContainerId, state: State) -> None:
        """The list is ahead of the stream. If no event follows until the next one, it is lost."""
        heard = container_id in self._heard or container_id in self._stale
        if not heard and state not in _LEAVING:
            self._unheard.add(container_id)

    def _away_s(self, listing: Listing) -> float:
        """For how long nobody listened. Endless if there was no list yet, or a clock was set."""
        if self._listed is None:
            return inf
        by_wall = listing.answered.wall - self._listed.wall
        by_boot = listing.answered.boot - self._listed.boot
        return by_boot + 2.0 if by_boot >= 0 and abs(by_wall - by_boot) < 1.0 else inf

    def _recalled(self, row: ContainerRow) -> Container | None:
        kept = self._kept.get(row.id)
        return None if kept is None else kept.container(row.labels)

    def _is_fresh(self, known: Container) -> bool:
        return known.id not in self._stale and known.id not in self._failed


def _agrees(row: ContainerRow, known: Container) -> bool:
    return row.name == known.name and row.state is known.state and row.labels == known.labels


def _by_name(containers: Collection[Container]) -> dict[ContainerName, Container]:
    """Containers by name; of two with one name, the one that is not about to go."""
    by_name = {container.name: container for container in containers}
    if len(by_name) == len(containers):
        return by_name
    by_name = {}
    for container in containers:
        other = by_name.get(container.name)
        if other is None or other.state in _LEAVING:
            by_name[container.name] = container
    return by_name


def _lasts(row: ContainerRow, known: Container, asked: tuple[float, float], away_s: float) -> bool:
    """Whether nothing happened to it since it was inspected that its row does not show."""
    if known.state is State.CREATED:
        return True  # It never ran: no time of it can have changed.
    return is_confirmed(
        row.status, started=known.started, finished=known.finished, asked=asked, away_s=away_s
    )


def _uninspected(row: ContainerRow) -> Container:
    return Container(
        id=row.id,
        name=row.name,
        state=row.state,
        labels=row.labels,
        request=Unknown(source=Source.DOCKER, reason="not inspected yet"),
        created=row.created,
    )


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """Put it last, and drop the oldest beyond what is worth remembering."""
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > _MOST:
        del memory[next(iter(memory))]
