"""The books that follow from the holdings: computed whole, never patched. Pure.

Given which bookings stand, every list, counter and record follows from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ds01d.decide.booking_record import find_booking
from ds01d.decide.index import BooksIndex
from ds01d.decide.ownership import NOBODY
from ds01d.decide.user_counters import recount_users
from ds01d.model.books import AllocatorState, BadRecord, Booking, Record, Slot, is_recordable
from ds01d.model.containers import State
from ds01d.model.drift import Action, Drift
from ds01d.model.limits import Limits
from ds01d.model.primitives import (
    BookingId,
    ContainerName,
    Digest,
    SlotId,
    Unknown,
    UserName,
)
from ds01d.model.reservation import ProcessState, parse_reserved_name


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChange:
    """One metadata file to write, or to remove where `record` is None; `onto` as in the port.

    `base`: the container's record under its previous name, whose unknown fields go along.
    """

    name: ContainerName
    record: Record | None
    onto: Digest | None
    base: ContainerName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedBooks:
    """What the books should say once some drifts are settled. `state` None: as it is."""

    state: AllocatorState | None
    records: tuple[RecordChange, ...]


def render_books(index: BooksIndex, due: Iterable[Drift]) -> ExpectedBooks:
    """The books as they are but for what `due` settles; drifts that are not due change nothing."""
    due = tuple(due)
    taken = frozenset(pair for drift in due for pair in drift.taken)
    given = frozenset(pair for drift in due for pair in drift.given)
    recount = frozenset(d.slot for d in due if d.action is Action.RECOUNT and d.slot is not None)
    names = frozenset().union(*(drift.names for drift in due))
    moved = frozenset().union(*(drift.names for drift in due if drift.renamed_to is not None))
    slots_of = {name: set(index.booked_slots.get(name, ())) for name in sorted(names)}
    for name, slot in taken:
        slots_of[name].discard(slot)
    for name, slot in given:
        slots_of[name].add(slot)
    state = _render_state(index, taken, given, recount, moved)
    old = index.snapshot.state
    # What is over is not a change of what is booked, and is to be dropped from the file.
    if state is None and isinstance(old, AllocatorState) and any(map(index.is_derived, names)):
        state = old
    return ExpectedBooks(state=state, records=tuple(_render_records(index, slots_of)))


def _render_state(
    index: BooksIndex,
    taken: frozenset[Booking],
    given: frozenset[Booking],
    recount: frozenset[SlotId],
    moved: frozenset[ContainerName],
) -> AllocatorState | None:
    """The state with the slots that something is taken from, given to or counted again in."""
    slots = dict(index.table.slots)
    for changed in recount | {slot for _, slot in taken | given}:
        slot = slots.get(changed)
        # The table may have dropped the slot in the same change.
        if slot is None:
            continue
        new = sorted(name for name, to in given if to == changed)
        remaining = tuple(c for c in slot.containers if (c, changed) not in taken or c in new)
        if changed in recount:
            remaining = tuple(dict.fromkeys(remaining))
        containers = remaining + tuple(name for name in new if name not in remaining)
        if containers != slot.containers or changed in recount:
            counters = count_users(slot, containers, index, moved)
            slots[changed] = replace(slot, containers=containers, users=counters)
    old = index.snapshot.state
    if not isinstance(old, AllocatorState):
        return AllocatorState(
            slots=slots,
            mig_enabled=index.table.mig_enabled,
            digest=Digest(""),
            derived=index.derived,
        )
    # The order counts: a table whose slots are only ordered differently is another file, and a
    # write that changes nothing must not happen.
    same = (
        list(slots.items()) == list(old.slots.items())
        and index.table.mig_enabled == old.mig_enabled
    )
    return None if same else replace(old, slots=slots, mig_enabled=index.table.mig_enabled)


def count_users(
    slot: Slot,
    containers: Iterable[ContainerName],
    index: BooksIndex,
    moved: frozenset[ContainerName] = frozenset(),
) -> Mapping[str, int]:
    """The user counters of a slot with these containers.

    `moved`: names whose bookings have followed their containers by then.
    """
    names = dict.fromkeys(containers)
    owners = [index.find_user(name) if name in moved else index.find_booker(name) for name in names]
    return recount_users(
        slot.users, owners, _count_unclaimed(slot, index) if None in owners else None
    )


def _render_records(
    index: BooksIndex, slots_of: Mapping[ContainerName, set[SlotId]]
) -> Iterable[RecordChange]:
    if isinstance(index.snapshot.metadata, Unknown) or isinstance(index.snapshot.docker, Unknown):
        return
    for name, slots in slots_of.items():
        existing = index.records.get(name)
        # One without a digest is derived, and has no file.
        onto = existing.digest or None if existing is not None else None
        if isinstance(existing, BadRecord) and not existing.replaceable:
            continue
        if not slots:
            if existing is not None and existing.digest:
                yield RecordChange(name=name, record=None, onto=onto)
            continue
        # The name is too long for a file name; the finding `long-name` reports it.
        if not is_recordable(name):
            continue  # reported by the finding `long-name`
        if _is_derived(name, slots, index) and not index.needs_record(name):
            if existing is not None and existing.digest:
                yield RecordChange(name=name, record=None, onto=onto)
            continue
        record = render_record(name, frozenset(slots), index)
        if record != existing:
            books_name = index.renames.name_in_books(name)
            base = books_name if books_name != name else None
            yield RecordChange(name=name, record=record, onto=onto, base=base)


def _is_derived(name: ContainerName, slots: Iterable[SlotId], index: BooksIndex) -> bool:
    """Its container has these slots by its request, so they are not written."""
    return all((name, slot) in index.derived for slot in slots)


def render_record(name: ContainerName, slots: frozenset[SlotId], index: BooksIndex) -> Record:
    """The metadata of a container that holds `slots`: what is right in it stays as it is."""
    old = index.find_record(name) or Record(
        container=name, user=None, gpu_id=None, booking=_restore_booking_id(name, index)
    )
    # Inherited from the record under the previous name: it becomes a new file, so its digest does
    # not count.
    if old.container != name:
        old = replace(old, container=name, digest=Digest(""), processes=())
    container = index.containers.get(name)
    user = index.find_user(name) or _find_unclaimed_user(slots, index)
    priority = old.priority
    if priority is None and isinstance(index.limits, Limits):
        priority = index.limits.find_priority(user)
    booked = old.gpu_id if old.gpu_id is None else index.table.moved.get(old.gpu_id, old.gpu_id)
    record = _update_record(
        old,
        user=user or NOBODY,
        gpu_id=booked if booked in slots else min(slots),
        priority=priority if priority is not None else 0,
    )
    # Decision 6: the creation time, so that our own booking does not look like a creation that has
    # just begun.
    if old.allocated_at is None:
        created = container.created if container is not None else None
        at = created if created is not None else index.snapshot.now.wall
        record = replace(record, allocated_at=at, allocated_text=None)
    if container is None:
        return record
    # It is no reservation any more: what ends a container's booking is not the end of a process.
    if record.processes and index.snapshot.find_process_state(record) is ProcessState.ENDED:
        record = replace(record, processes=())
    if container.state.alive:
        if record.stopped_at is None and record.stopped_text is None:
            return record
        return replace(record, stopped_at=None, stopped_text=None)
    finished = container.finished
    # A created or removing container has no stop time that Docker stands by.
    if container.state not in (State.EXITED, State.DEAD) or finished is None:
        return record
    # A clock that was set back in between lets a container finish before it started.
    this_run = min(finished, container.started or finished) - _TEXT_RESOLUTION_S
    if old.stopped_at is None or old.stopped_at < this_run:
        return replace(record, stopped_at=finished, stopped_text=None)
    return record


def _restore_booking_id(name: ContainerName, index: BooksIndex) -> BookingId | None:
    """The ID of a reservation whose record is missing: its name has it, too."""
    booking = parse_reserved_name(name)
    # Anybody can give a container a name with the ID of somebody else's booking.
    if booking is None or find_booking(booking, index.records) is not None:
        return None
    return booking


def _update_record(old: Record, *, user: UserName, gpu_id: SlotId, priority: int) -> Record:
    """`old` with these; itself where it has them, as nearly all have in each sweep."""
    if (old.user, old.gpu_id, old.priority) == (user, gpu_id, priority):
        return old
    return replace(old, user=user, gpu_id=gpu_id, priority=priority)


_TEXT_RESOLUTION_S = 1.0  # the allocator may write whole seconds


def _find_unclaimed_user(slots: frozenset[SlotId], index: BooksIndex) -> UserName | None:
    """The one user whom these slots count without a container that is known to be theirs."""
    listed_slots = (index.table.slots[slot] for slot in slots if slot in index.table.slots)
    unclaimed = {user for slot in listed_slots for user in _count_unclaimed(slot, index)}
    return UserName(unclaimed.pop()) if len(unclaimed) == 1 else None


def _count_unclaimed(slot: Slot, index: BooksIndex) -> Counter[str]:
    """What a slot counts beyond the containers whose user is known."""
    owners = Counter(str(index.find_booker(name)) for name in dict.fromkeys(slot.containers))
    return Counter(dict(slot.users)) - owners
