"""What is known of Docker's containers between its answers; list and events keep it true.

It makes no call and has no clock. The stream's thread tells it what it heard (`hear`), the worker
what Docker answered; the lock is held for moments only. An event never brings a fact: it says which
container must be inspected again, or that one is gone. Facts come from the list and from inspects.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from ds01d.adapters.docker_age import is_confirmed
from ds01d.adapters.docker_facts import EngineEvent, Row
from ds01d.model.facts import (
    Boot,
    Container,
    ContainerId,
    ContainerName,
    Destroyed,
    Request,
    Source,
    State,
    Unknown,
    Wall,
)

K = TypeVar("K")
V = TypeVar("V")

_VERSION = 1
_MOST = 4096  # of what is gone and only remembered
_LEAVING = frozenset((State.REMOVING, State.DEAD))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One instant on both clocks, to notice when the wall clock was set."""

    wall: Wall
    boot: Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The circumstances of a list: when it was asked for, and when it was answered.

    `gapless`: the stream of events has been open without a break since the list before it.
    """

    asked: Moment
    answered: Moment
    gapless: bool


class DockerCache:
    """Every container, what must be inspected again, and who was destroyed. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[ContainerId, Container] = {}
        self._kept: dict[ContainerId, _Kept] = {}
        self._listed: Moment | None = None
        self._stale: set[ContainerId] = set()
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
                    _remember(self._destroyed, name, Destroyed(id=event.id, name=name, at=at))
            elif event.id not in self._ended:
                self._stale.add(event.id)
                if event.name is not None:
                    self._destroyed.pop(event.name, None)
            names = (event.name, event.old_name, before.name if before else None)
            return frozenset(name for name in names if name is not None)

    # --- from the list

    def begin_list(self) -> None:
        """A list is about to be asked for: events from now on are newer than it."""
        with self._lock:
            self._heard.clear()

    def take_list(self, rows: Iterable[Row], listing: Listing) -> int:
        """Replace what is known by the list, keeping the facts that it confirms.

        Gives how many changes the list before showed and the stream has kept silent about.
        """
        with self._lock:
            missed = len(self._unheard) if listing.gapless else 0
            self.lost += missed
            self._unheard.clear()
            away_s = self._away(listing)
            asked = (listing.asked.wall, listing.answered.wall)
            before, self._known = self._known, {}
            for row in rows:
                if row.id in self._ended:
                    continue
                known = before.get(row.id) or self._recalled(row)
                if known is None or not _agrees(row, known):
                    if listing.gapless:
                        self._miss(row.id, row.state)
                    self._stale.add(row.id)
                    known = _uninspected(row)
                elif away_s is None or not _lasts(row, known, asked, away_s):
                    self._stale.add(row.id)
                self._known[row.id] = known
            for gone in before.keys() - self._known.keys():
                if gone in self._heard:
                    self._known[gone] = before[gone]  # newer than the list
                elif listing.gapless and gone not in self._ended:
                    self._miss(gone, before[gone].state)
            current = self._known.keys() | self._heard
            self._stale &= current
            self._failed &= current
            self._kept = {}
            self._listed = listing.asked
            return missed

    # --- from inspects

    def wanted(self, *, retry: bool) -> list[ContainerId]:
        """Who must be inspected; with `retry` also, and last, whoever could not be."""
        with self._lock:
            again = self._failed - self._stale if retry else ()
            return [*sorted(self._stale, key=self._failed.__contains__), *again]

    def begin_inspect(self, container_id: ContainerId) -> None:
        """An inspect is about to be asked for: events from now on are newer than it."""
        with self._lock:
            self._stale.discard(container_id)
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

    def answer(
        self,
    ) -> tuple[
        Mapping[ContainerId, Container],
        Mapping[ContainerName, Container],
        Mapping[ContainerName, Destroyed],
    ]:
        """Containers by id and by name, and the names that were destroyed and did not come back."""
        with self._lock:
            by_name: dict[ContainerName, Container] = {}
            for container in self._known.values():
                other = by_name.get(container.name)
                if other is None or other.state in _LEAVING:
                    by_name[container.name] = container
            for name in self._destroyed.keys() & by_name.keys():
                del self._destroyed[name]
            return dict(self._known), by_name, dict(self._destroyed)

    def export(self) -> bytes:
        """What inspects told and a list does not, for the next start."""
        with self._lock:
            if self._listed is None:
                return b""
            kept = _Export(version=_VERSION, listed=self._listed, containers=[*self._exported()])
            return msgspec.json.encode(kept)

    def restore(self, exported: bytes) -> None:
        """Take in an export; whatever makes no sense is as good as none."""
        try:
            told = msgspec.json.decode(exported, type=_Export)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        with self._lock:
            if told.version == _VERSION and self._listed is None:
                self._listed = told.listed
                self._kept = {kept.id: kept for kept in told.containers}

    # --- inside, with the lock held

    def _forget(self, container_id: ContainerId) -> None:
        self._known.pop(container_id, None)
        self._stale.discard(container_id)
        self._failed.discard(container_id)

    def _miss(self, container_id: ContainerId, state: State) -> None:
        """The list is ahead of the stream. If no event follows until the next one, it is lost."""
        heard = container_id in self._heard or container_id in self._stale
        if not heard and state not in _LEAVING:
            self._unheard.add(container_id)

    def _away(self, listing: Listing) -> float | None:
        """Seconds for which nobody listened; None where that cannot be told by the wall clock."""
        if listing.gapless:
            return 0.0
        if self._listed is None:
            return None
        by_wall = listing.answered.wall - self._listed.wall
        by_boot = listing.answered.boot - self._listed.boot
        return by_boot + 2.0 if by_boot >= 0 and abs(by_wall - by_boot) < 1.0 else None

    def _recalled(self, row: Row) -> Container | None:
        kept = self._kept.get(row.id)
        return None if kept is None else kept.container(row.labels)

    def _exported(self) -> Iterator[_Kept]:
        for known in self._known.values():
            inspected = known.id not in self._stale and known.id not in self._failed
            if inspected and isinstance(known.request, Request):
                yield _Kept(
                    id=known.id,
                    name=known.name,
                    state=known.state,
                    request=known.request,
                    privileged=known.privileged,
                    created=known.created,
                    started=known.started,
                    finished=known.finished,
                )


class _Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container without its labels, which every list repeats."""

    id: ContainerId
    name: ContainerName
    state: State
    request: Request
    privileged: bool = False
    created: Wall | None = None
    started: Wall | None = None
    finished: Wall | None = None

    def container(self, labels: Mapping[str, str]) -> Container:
        return Container(
            id=self.id,
            name=self.name,
            state=self.state,
            labels=labels,
            request=self.request,
            privileged=self.privileged,
            created=self.created,
            started=self.started,
            finished=self.finished,
        )


class _Export(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    listed: Moment
    containers: list[_Kept]


def _agrees(row: Row, known: Container) -> bool:
    return (row.name, row.state, row.labels) == (known.name, known.state, known.labels)


def _lasts(row: Row, known: Container, asked: tuple[float, float], away_s: float) -> bool:
    """Whether nothing happened to it since it was inspected that its row does not show."""
    if known.state is State.CREATED:
        return True  # It never ran: no time of it can have changed.
    return is_confirmed(
        row.status, started=known.started, finished=known.finished, asked=asked, away_s=away_s
    )


def _uninspected(row: Row) -> Container:
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
