"""The entries of one host in the store, and the names that are taken with them.

Every change is a transaction that compares what it was decided upon: the user's fence, or the
revision of each key that it touches. So one that is sent twice, or carried out late by a member
that was frozen, changes nothing.
"""

from __future__ import annotations

from typing import Any, Final

from ds01d.adapters.fleet.book_format import (
    FENCE,
    encode_entry,
    encode_name,
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
from ds01d.adapters.fleet.stored_booking import (
    StoredBooking,
    find_revision,
    is_larger,
    is_name_of,
    make_name,
    parse_holder,
    parse_stored,
    plan_names,
)
from ds01d.errors import StoreFailed
from ds01d.model.fleet_books import (
    Absent,
    Changed,
    Conflict,
    ConflictKind,
    FleetEntry,
    Revision,
)

# Each attempt that is lost means that another change was made; five in a row are no race any more.
_ATTEMPTS: Final = 5


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
            put_key(name, encode_name(make_name(entry))),
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
            holder = parse_holder(entry.container, taken)
            if not is_name_of(holder, entry):
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
            compares, changes, holder = plan_names(entry, stored)
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
            compares, changes, _ = plan_names(entry, stored)
            changes.append(_put_entry(entry, stored))
            # Decision 367: also with less, of which another container of a shared slot may have
            # the rest in a reservation that is under way.
            if stored.entry is None or entry.use != stored.entry.use:
                changes.append(put_key(fence_key(entry.user), FENCE))
            reply = self._store.commit(compares, changes)
            if reply.succeeded:
                return Changed(revision=Revision(reply.header.revision))
        raise StoreFailed(_describe_race(entry))

    def withdraw(self, entry: FleetEntry, *, keeps_names: bool = False) -> Changed | Absent:
        """See `FleetBook.withdraw_entry`."""
        for _ in range(_ATTEMPTS):
            stored = self._read_stored(entry)
            compares = [is_unchanged(held_key(entry), find_revision(stored.key))]
            changes: list[dict[str, Any]] = []
            for container, taken in () if keeps_names else stored.names.items():
                if taken is not None and is_name_of(parse_holder(container, taken), entry):
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

    def free_name(self, entry: FleetEntry) -> Changed | Absent:
        """See `FleetBook.free_name`."""
        for _ in range(_ATTEMPTS):
            stored = self._read_stored(entry)
            taken = stored.names[entry.container]
            is_current = stored.entry is not None and stored.entry.container == entry.container
            if (
                taken is None
                or is_current
                or not is_name_of(parse_holder(entry.container, taken), entry)
            ):
                return Absent()
            key = name_key(entry.container)
            # With the entry's: a confirmation that renames it back in between leaves the name.
            compares = [
                is_unchanged(held_key(entry), find_revision(stored.key)),
                is_unchanged(key, taken.mod_revision),
            ]
            reply = self._store.commit(compares, [delete_key(key)])
            if reply.succeeded:
                return Changed(revision=Revision(reply.header.revision))
        raise StoreFailed(_describe_race(entry))

    def _read_stored(self, entry: FleetEntry) -> StoredBooking:
        """The keys of a booking: of its name too, and of the one it had before a rename."""
        keys = [read_key(held_key(entry)), read_key(name_key(entry.container))]
        reply = self._store.commit([], keys)
        current, names = reply.find_key(0), {entry.container: reply.find_key(1)}
        stored = None if current is None else parse_stored(entry, current)
        # A name that changes between the two reads fails the transaction that follows.
        if stored is not None and stored.container not in names:
            reply = self._store.commit([], [read_key(name_key(stored.container))])
            names[stored.container] = reply.find_key(0)
        return StoredBooking(key=current, entry=stored, names=names)


def _put_entry(entry: FleetEntry, stored: StoredBooking) -> dict[str, Any]:
    # Of a newer ds01d, which this host ran before, or runs on others.
    extra = {} if stored.entry is None else stored.entry.extra
    return put_key(held_key(entry), encode_entry(entry, extra))


def _judge_present(entry: FleetEntry, present: KeyValue) -> Changed | Conflict:
    """The entry is there already: this very reservation, whose answer was lost, or a smaller one.

    A booking's ID is made up for it alone, so nobody else's entry can be at that key.
    """
    # The caller counts again: the larger one may be over the quota.
    if is_larger(entry, parse_stored(entry, present)):
        return Conflict(kind=ConflictKind.FENCE)
    return Changed(revision=Revision(present.mod_revision))


def _describe_race(entry: FleetEntry) -> str:
    return f"the entry of booking {entry.booking} was changed at each of {_ATTEMPTS} attempts"
