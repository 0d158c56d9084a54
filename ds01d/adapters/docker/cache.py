"""The containers of one engine, as lists and inspects gave them; events mark them stale.

It makes no call and has no clock. The stream's thread applies events, the worker stores Docker's
answers. An event carries no state: it shows what must be inspected again, or that one is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from ds01d.adapters.docker.cache_file import CachedContainer, decode_cache, encode_cache
from ds01d.adapters.docker.event_audit import SILENT_STATES, EventAudit
from ds01d.adapters.docker.inspect_queue import InspectQueue
from ds01d.adapters.docker.listing import (
    ClockReading,
    Listing,
    matches_row,
    uninspected_container,
)
from ds01d.adapters.docker.parsing import ContainerRow, EngineEvent
from ds01d.model.container_labels import has_ds01_labels
from ds01d.model.containers import Container, Destroyed, State
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Source, Unknown

K = TypeVar("K")
V = TypeVar("V")

_MAX_DESTROYED = 4096


class DockerCache:
    """All containers, those that must be inspected again, and those destroyed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._audit = EventAudit()
        self._queue = InspectQueue()
        self._containers: dict[ContainerId, Container] = {}
        self._restored: dict[ContainerId, CachedContainer] = {}
        self._listed: ClockReading | None = None
        self._destroyed_ids: dict[ContainerId, None] = {}
        self._destroyed: dict[ContainerName, Destroyed] = {}

    # --- events

    @property
    def events_received(self) -> int:
        return self._audit.received

    @property
    def events_lost(self) -> int:
        """Changes that a list has shown and no event."""
        return self._audit.lost

    def apply_event(self, event: EngineEvent, at: Boot) -> frozenset[ContainerName]:
        """Mark what the event makes stale; the names that it concerns."""
        with self._lock:
            self._audit.count_event(event.id)
            cached = self._containers.get(event.id)
            if event.action == "destroy":
                self._apply_destroy(event, cached, at)
            names = (event.name, event.old_name, cached.name if cached else None)
            affected = frozenset(name for name in names if name is not None)
            # Events may arrive late: a `die` after `destroy` must not bring the container back.
            if event.id not in self._destroyed_ids:
                self._queue.mark_stale(event.id, affected)
                if event.name is not None:
                    self._destroyed.pop(event.name, None)
            return affected

    def _apply_destroy(self, event: EngineEvent, cached: Container | None, at: Boot) -> None:
        self._drop_container(event.id)
        # By ID too: a list asked for before the destroy may still have it.
        _append_bounded(self._destroyed_ids, event.id, None)
        name = event.name or (cached.name if cached else None)
        if name is not None:
            # Labels decide whether it was a DS01 container, and a destroy event may come without
            # them.
            labels = event.labels if cached is None else cached.labels
            destroyed = Destroyed(id=event.id, name=name, at=at, labelled=has_ds01_labels(labels))
            _append_bounded(self._destroyed, name, destroyed)

    # --- lists

    def begin_list(self) -> None:
        """A list is about to be asked for: events from now on are newer than it."""
        with self._lock:
            self._audit.since_list.clear()

    def apply_list(self, rows: Iterable[ContainerRow], listing: Listing) -> int:
        """Replace the containers by those of a list; how many events are lost since the last one.

        Invariant: afterwards a container is cached if and only if the list or a newer event has
        it, and each is either as its last inspect gave it, confirmed by its row, or it is stale.
        """
        # The list replaces everything, but an event after it was asked for is newer than its rows.
        with self._lock:
            lost = self._audit.count_lost(gapless=listing.gapless)
            away_s = listing.seconds_since(self._listed)
            before, self._containers = self._containers, {}
            for row in rows:
                if row.id not in self._destroyed_ids:
                    cached = before.get(row.id) or self._restore_row(row)
                    self._containers[row.id] = self._apply_row(row, cached, listing, away_s)
            for container_id in before.keys() - self._containers.keys():
                self._apply_absence(before[container_id], listing)
            self._queue.retain(self._containers.keys() | self._audit.since_list)
            self._restored = {}
            self._listed = listing.asked
            return lost

    def _apply_row(
        self, row: ContainerRow, cached: Container | None, listing: Listing, away_s: float
    ) -> Container:
        """The container to cache for a row; stale unless the row confirms `cached`."""
        if cached is None or not matches_row(cached, row):
            self._await_event(row.id, row.state, listing)
            cached = uninspected_container(row)
        elif listing.confirms(row, cached, away_s):
            return cached
        self._queue.mark_stale(row.id, frozenset((row.name,)))
        return cached

    def _apply_absence(self, cached: Container, listing: Listing) -> None:
        """A cached container is not in the list: it is newer than the list, or gone."""
        if cached.id in self._audit.since_list:
            self._containers[cached.id] = cached
        elif cached.id not in self._destroyed_ids:
            self._await_event(cached.id, cached.state, listing)

    def _await_event(self, container_id: ContainerId, state: State, listing: Listing) -> None:
        # A stale container has had its event; it was only not inspected yet.
        if listing.gapless and not self._queue.is_stale(container_id):
            self._audit.await_event(container_id, state)

    def _restore_row(self, row: ContainerRow) -> Container | None:
        restored = self._restored.get(row.id)
        return None if restored is None else restored.to_container(row.labels)

    @property
    def awaits_events(self) -> bool:
        """The last list was ahead of the stream."""
        with self._lock:
            return self._audit.is_awaiting

    # --- inspects

    def select_stale(self, names: frozenset[ContainerName] | None) -> list[ContainerId]:
        """The containers to inspect before anything is decided about `names`; None: all of them."""
        with self._lock:
            return self._queue.select_due(names)

    def affected_names(self, container_ids: Iterable[ContainerId]) -> frozenset[ContainerName]:
        """The names that are undecided until these containers are inspected."""
        with self._lock:
            return self._queue.affected_names(container_ids)

    def begin_inspect(self, container_id: ContainerId) -> None:
        """An inspect is about to be asked for: events from now on are newer than it."""
        with self._lock:
            self._queue.begin_inspect(container_id)

    def store_inspect(self, container: Container) -> None:
        """Cache a fresh answer, unless the container was destroyed meanwhile."""
        with self._lock:
            self._queue.end_inspect(container.id)
            if container.id not in self._destroyed_ids:
                self._containers[container.id] = container

    def drop_missing(self, container_id: ContainerId) -> None:
        """The engine has answered 404 for this container."""
        with self._lock:
            self._drop_container(container_id)

    def store_failure(self, container_id: ContainerId, reason: str) -> bool:
        """The inspect failed: the container's request is unknown. False if no list has it yet."""
        with self._lock:
            cached = self._containers.get(container_id)
            if cached is not None:
                failure = Unknown(source=Source.DOCKER, reason=reason)
                # Its state is known from the list; only what it asked for is not.
                self._containers[container_id] = replace(cached, request=failure)
            return cached is not None or container_id in self._destroyed_ids

    # --- reading

    def has_container(self, container_id: ContainerId) -> bool:
        with self._lock:
            return container_id in self._containers

    def read_all(
        self,
    ) -> tuple[
        Mapping[ContainerId, Container],
        Mapping[ContainerName, Container],
        Mapping[ContainerName, Destroyed],
    ]:
        """Containers by ID and by name, and the names destroyed and not used again since."""
        with self._lock:
            by_name = _index_by_name(self._containers.values())
            # A name that is used again is proof of nothing any more.
            for name in self._destroyed.keys() & by_name.keys():
                del self._destroyed[name]
            return dict(self._containers), by_name, dict(self._destroyed)

    def export_bytes(self) -> bytes:
        """The inspected containers, for `restore_bytes` at the next start; b"" if there are none.

        Without those that are stale: after a restart they could not be recognized as stale.
        """
        with self._lock:
            if self._listed is None:
                return b""
            fresh = (cached for key, cached in self._containers.items() if key not in self._queue)
            return encode_cache(self._listed, fresh)

    def restore_bytes(self, exported: bytes) -> None:
        """Take in an export before the first list. Invalid bytes are ignored."""
        restored = decode_cache(exported)
        with self._lock:
            if restored is not None and self._listed is None:
                self._listed, self._restored = restored

    def _drop_container(self, container_id: ContainerId) -> None:
        self._containers.pop(container_id, None)
        self._queue.remove(container_id)


def _index_by_name(containers: Collection[Container]) -> dict[ContainerName, Container]:
    """Containers by name; of two with one name, the one that is not being removed."""
    by_name = {container.name: container for container in containers}
    if len(by_name) == len(containers):
        return by_name
    by_name = {}
    for container in containers:
        other = by_name.get(container.name)
        if other is None or other.state in SILENT_STATES:
            by_name[container.name] = container
    return by_name


def _append_bounded(entries: dict[K, V], key: K, value: V) -> None:
    """Put an entry last and drop the oldest ones beyond the bound."""
    entries.pop(key, None)
    entries[key] = value
    while len(entries) > _MAX_DESTROYED:
        del entries[next(iter(entries))]
