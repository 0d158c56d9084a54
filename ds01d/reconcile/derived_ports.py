"""The ports of the books with Docker as the books: read derived, written for reservations only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from ds01d.model.books import AllocatorState, BadRecord, Record, Unreadable
from ds01d.model.primitives import ContainerName, Digest, SlotId, Unknown
from ds01d.reconcile.books_ports import NO_TEXTS, MetadataBook, StateBook

ReadState = Callable[[], AllocatorState | Unreadable | Unknown]
ReadRecords = Callable[[], Mapping[ContainerName, Record | BadRecord] | Unknown]


class DerivedState:
    """A `StateBook` over that of the reservations."""

    def __init__(
        self, stored: StateBook, read: ReadState, lock: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._stored, self.read, self.lock = stored, read, lock
        self.save_last_good, self.restore_broken = stored.save_last_good, stored.restore_broken
        self.slot_texts, self.parse_slot = stored.slot_texts, stored.parse_slot

    def write(
        self, state: AllocatorState, *, onto: Digest, texts: Mapping[SlotId, str] = NO_TEXTS
    ) -> AllocatorState:
        """Write the reservations in `state`."""
        return self._stored.write(state.without_derived(), onto=onto, texts=texts)


class DerivedRecords:
    """A `MetadataBook` over that of the reservations; records of containers have no digest."""

    def __init__(self, stored: MetadataBook, read: ReadRecords) -> None:
        self._stored, self._read = stored, read
        self.read_text, self.render_record = stored.read_text, stored.render_record
        self.restore_text, self.remove_leftovers = stored.restore_text, stored.remove_leftovers
        self.is_current = stored.is_current

    def read(
        self,
        names: frozenset[ContainerName] | None = None,  # noqa: ARG002 - of the port
    ) -> Mapping[ContainerName, Record | BadRecord] | Unknown:
        return self._read()

    def write(self, record: Record, *, onto: Digest | None) -> None:
        # Docker knows since when a container is stopped: there is nothing to write down.
        if onto != "":
            self._stored.write(record, onto=onto)

    def remove(self, name: ContainerName, *, onto: Digest) -> None:
        if onto:
            self._stored.remove(name, onto=onto)
