"""What the store has of one booking, and what follows for its names. Pure.

Whatever somebody wrote there: what cannot be read is no entry, and a name that is taken by nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ds01d.adapters.fleet.book_format import (
    encode_name,
    make_unknown_name,
    parse_entry,
    parse_name,
)
from ds01d.adapters.fleet.book_keys import held_key, name_key
from ds01d.adapters.fleet.etcd_messages import (
    ABSENT,
    KeyValue,
    delete_key,
    is_unchanged,
    put_key,
)
from ds01d.errors import Malformed
from ds01d.model.fleet_books import FleetEntry, NameEntry, exceeds_use
from ds01d.model.primitives import ContainerName


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBooking:
    """What the store has of a booking. `entry` None: nothing, or nothing that can be read."""

    key: KeyValue | None
    entry: FleetEntry | None
    names: dict[ContainerName, KeyValue | None]


def plan_names(
    entry: FleetEntry, stored: StoredBooking
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], NameEntry | None]:
    """What to compare and to change so that the entry has its name; who has it if another does."""
    compares = [is_unchanged(held_key(entry), find_revision(stored.key))]
    changes: list[dict[str, Any]] = []
    other: NameEntry | None = None
    for container, taken in stored.names.items():
        key = name_key(container)
        compares.append(is_unchanged(key, find_revision(taken)))
        is_own = taken is not None and is_name_of(parse_holder(container, taken), entry)
        if container != entry.container:
            # Of before a rename.
            if is_own:
                changes.append(delete_key(key))
        elif taken is None:
            changes.append(put_key(key, encode_name(make_name(entry))))
        elif not is_own:
            other = parse_holder(container, taken)
    return compares, changes, other


def is_larger(entry: FleetEntry, stored: FleetEntry | None) -> bool:
    """It takes up more of the quota than those who count know."""
    return stored is None or exceeds_use(entry.use, stored.use)


def parse_stored(entry: FleetEntry, current: KeyValue) -> FleetEntry | None:
    """What the store has of this booking; None where somebody has spoilt it."""
    try:
        return parse_entry(entry.user, entry.node, entry.booking, current.value)
    except Malformed:
        return None


def parse_holder(container: ContainerName, taken: KeyValue) -> NameEntry:
    """Who has a name; nobody that can be named, where somebody has spoilt it."""
    try:
        return parse_name(container, taken.value)
    except Malformed:
        return make_unknown_name(container)


def make_name(entry: FleetEntry) -> NameEntry:
    return NameEntry(container=entry.container, node=entry.node, booking=entry.booking)


def is_name_of(name: NameEntry, entry: FleetEntry) -> bool:
    return (name.node, name.booking) == (entry.node, entry.booking)


def find_revision(key: KeyValue | None) -> int:
    return ABSENT if key is None else key.mod_revision
