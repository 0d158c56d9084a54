"""The entries of one host in the store, and the names that are taken with them.

Every change is a transaction that compares what it was decided upon: the user's fence, or the
revision of each key that it touches. So one that is sent twice, or carried out late by a member
that was frozen, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ds01d.adapters.fleet.book_format import (
    FENCE,
    encode_entry,
    encode_name,
    make_unknown_name,
    parse_entry,
    parse_name,
)
from ds01d.adapters.fleet.book_keys import fence_key, held_key, name_key
from ds01d.adapters.fleet.etcd_messages import (
    ABSENT,
    KeyValue,
    delete_key,
    is_unchanged,
    put_key,
    read_key,
)
from ds01d.adapters.fleet.etcd_store import EtcdStore
from ds01d.errors import Malformed, StoreFailed
from ds01d.model.fleet_books import (
    Absent,
    Changed,
    Conflict,
    ConflictKind,
    FleetEntry,
    NameEntry,
    Revision,
)
from ds01d.model.primitives import ContainerName

# Each attempt that is lost means that another change was made; five in a row are no race any more.
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What the store has of a booking. `entry` None: nothing, or nothing that can be read."""

    key: KeyValue | None
    entry: FleetEntry | None
    names: dict[ContainerName, KeyValue | None]


class EtcdEntries:
    """Any thread may call. Every method raises StoreFailed; then the change may have been made."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store

    def reserve(self, entry: FleetEntry, fence: Revision) -> Changed | Conflict:
        """See `FleetBook.reserve_entry`."""
        entry_key, name = held_key(entry), name_key(entry.container)
        fence_of_user = fence_key(entry.user)
        puts = [
            put_key(fence_of_user, FENCE),
            put_key(entry_key, encode_entry(entry)),
            put_key(name, encode_name(_make_name(entry))),
        ]
        name_revision = ABSENT
        # It ends: each further round needs another revision of a name that is this booking's, and
        # only this host writes those.
        while True:
            compares = [
                is_unchanged(fence_of_user, fence),
                is_unchanged(entry_key, ABSENT),
                is_unchanged(name, name_revision),
            ]
            reply = self._store.commit(compares, puts, [read_key(entry_key), read_key(name)])
            if reply.succeeded:
                return Changed(revision=Revision(reply.header.revision))
            present, taken = reply.find_key(0), reply.find_key(1)
            if present is not None:
                return _judge_present(entry, present)
            if taken is None:
                return Conflict(kind=ConflictKind.FENCE)
            holder = _parse_name(entry.container, taken)
            if not _is_of(holder, entry):
                return Conflict(kind=ConflictKind.NAME, holder=holder)
            if name_revision == taken.mod_revision:
                return Conflict(kind=ConflictKind.FENCE)
            # The name is this booking's, as a half that is left of it.
            name_revision = taken.mod_revision

    def report(self, entry: FleetEntry) -> Changed | Conflict:
        """See `FleetBook.report_entry`."""
        for _ in range(_ATTEMPTS):
            stored = self._read_stored(entry)
            # The quota is not asked: what is real is counted, and others are told by the fence.
            compares, changes, holder = _plan_names(entry, stored)
            changes += [put_key(fence_key(entry.user), FENCE), _put_entry(entry, stored)]
            reply = self._store.commit(compares, changes)
            if reply.succeeded:
                if holder is not None:
                    return Conflict(kind=ConflictKind.NAME, holder=holder)
                return Changed(revision=Revision(reply.header.revision))
        raise StoreFailed(_describe_race(entry))

    def confirm(self, entry: FleetEntry) -> Changed | Absent:
        """See `FleetBook.confirm_entry`."""
        for _ in range(_ATTEMPTS):
            stored = self._read_stored(entry)
            if stored.key is None:
                return Absent()
            compares, changes, _ = _plan_names(entry, stored)
            changes.append(_put_entry(entry, stored))
            # Less than was reserved needs no new fence: those who counted too much have refused,
            # not allowed.
            if _is_larger(entry, stored.entry):
                changes.append(put_key(fence_key(entry.user), FENCE))
            reply = self._store.commit(compares, changes)
            if reply.succeeded:
                return Changed(revision=Revision(reply.header.revision))
        raise StoreFailed(_describe_race(entry))

    def withdraw(self, entry: FleetEntry, *, keeps_names: bool = False) -> Changed | Absent:
        """See `FleetBook.withdraw_entry`."""
        for _ in range(_ATTEMPTS):
            stored = self._read_stored(entry)
            compares = [is_unchanged(held_key(entry), _revision_of(stored.key))]
            changes: list[dict[str, Any]] = []
            for container, taken in () if keeps_names else stored.names.items():
                if taken is not None and _is_of(_parse_name(container, taken), entry):
                    compares.append(is_unchanged(name_key(container), taken.mod_revision))
                    changes.append(delete_key(name_key(container)))
            if stored.key is not None:
                changes.append(delete_key(held_key(entry)))
            else:
                # A reservation of it that is still under way fails from here on.
                changes.append(put_key(fence_key(entry.user), FENCE))
            # The fence alone: neither the entry nor its name was there.
            is_absent = stored.key is None and len(changes) == 1
            reply = self._store.commit(compares, changes)
            if reply.succeeded:
                if is_absent:
                    return Absent()
                return Changed(revision=Revision(reply.header.revision))
        raise StoreFailed(_describe_race(entry))

    def _read_stored(self, entry: FleetEntry) -> _Stored:
        """The keys of a booking: of its name too, and of the one it had before a rename."""
        keys = [read_key(held_key(entry)), read_key(name_key(entry.container))]
        reply = self._store.commit([], keys)
        current, names = reply.find_key(0), {entry.container: reply.find_key(1)}
        stored = None if current is None else _parse_entry(entry, current)
        # A name that changes between the two reads fails the transaction that follows.
        if stored is not None and stored.container not in names:
            reply = self._store.commit([], [read_key(name_key(stored.container))])
            names[stored.container] = reply.find_key(0)
        return _Stored(key=current, entry=stored, names=names)


def _plan_names(
    entry: FleetEntry, stored: _Stored
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], NameEntry | None]:
    """What to compare and to change so that the entry has its name; who has it if another does."""
    compares = [is_unchanged(held_key(entry), _revision_of(stored.key))]
    changes: list[dict[str, Any]] = []
    other: NameEntry | None = None
    for container, taken in stored.names.items():
        key = name_key(container)
        compares.append(is_unchanged(key, _revision_of(taken)))
        is_own = taken is not None and _is_of(_parse_name(container, taken), entry)
        if container != entry.container:
            # Of before a rename.
            if is_own:
                changes.append(delete_key(key))
        elif taken is None:
            changes.append(put_key(key, encode_name(_make_name(entry))))
        elif not is_own:
            other = _parse_name(container, taken)
    return compares, changes, other


def _put_entry(entry: FleetEntry, stored: _Stored) -> dict[str, Any]:
    # Of a newer ds01d, which this host ran before, or runs on others.
    extra = {} if stored.entry is None else stored.entry.extra
    return put_key(held_key(entry), encode_entry(entry, extra))


def _judge_present(entry: FleetEntry, present: KeyValue) -> Changed | Conflict:
    """The entry is there already: this very reservation, whose answer was lost, or a smaller one.

    A booking's ID is made up for it alone, so nobody else's entry can be at that key.
    """
    # The caller counts again: the larger one may be over the quota.
    if _is_larger(entry, _parse_entry(entry, present)):
        return Conflict(kind=ConflictKind.FENCE)
    return Changed(revision=Revision(present.mod_revision))


def _is_larger(entry: FleetEntry, stored: FleetEntry | None) -> bool:
    """It takes up more of the quota than those who count know."""
    if stored is None:
        return True
    return entry.count > stored.count or entry.sevenths > stored.sevenths


def _parse_entry(entry: FleetEntry, current: KeyValue) -> FleetEntry | None:
    """What the store has of this booking; None where somebody has spoilt it."""
    try:
        return parse_entry(entry.user, entry.node, entry.booking, current.value)
    except Malformed:
        return None


def _parse_name(container: ContainerName, taken: KeyValue) -> NameEntry:
    """Who has a name; nobody that can be named, where somebody has spoilt it."""
    try:
        return parse_name(container, taken.value)
    except Malformed:
        return make_unknown_name(container)


def _make_name(entry: FleetEntry) -> NameEntry:
    return NameEntry(container=entry.container, node=entry.node, booking=entry.booking)


def _is_of(name: NameEntry, entry: FleetEntry) -> bool:
    return (name.node, name.booking) == (entry.node, entry.booking)


def _revision_of(key: KeyValue | None) -> int:
    return ABSENT if key is None else key.mod_revision


def _describe_race(entry: FleetEntry) -> str:
    return f"the entry of booking {entry.booking} was changed at each of {_ATTEMPTS} attempts"
