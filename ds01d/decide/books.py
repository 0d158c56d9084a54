"""The books that follow from the holdings: computed whole, never patched. Pure.

Given which bookings stand, every list, counter and record follows from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ds01d.decide.counters import counted
from ds01d.decide.view import NOBODY, View
from ds01d.model.drift import Action, Drift
from ds01d.model.facts import (
    AllocatorState,
    BadRecord,
    ContainerName,
    Digest,
    Limits,
    Record,
    Slot,
    SlotId,
    State,
    Unknown,
    UserName,
)

Booking = tuple[ContainerName, SlotId]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChange:
    """One metadata file to write, or to remove where `record` is None; `onto` as in the port."""

    name: ContainerName
    record: Record | None
    onto: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the books should say once some drifts are settled. `state` None: as it is."""

    state: AllocatorState | None
    records: tuple[RecordChange, ...]


def render(view: View, due: Iterable[Drift]) -> Books:
    """The books as they are but for what `due` settles; drifts that are not due change nothing."""
    due = tuple(due)
    bookings = {(name, slot) for name, slots in view.own.items() for slot in slots}
    for drift in due:
        bookings -= drift.taken
    for drift in due:
        bookings |= drift.given
    recount = {drift.slot for drift in due if drift.action is Action.RECOUNT}
    state = _state(view, bookings, recount)
    touched = {n for drift in due for n, _ in drift.taken | drift.given} | {
        drift.container for drift in due if drift.container is not None
    }
    return Books(state=state, records=tuple(_records(view, bookings, sorted(touched))))


def _state(
    view: View, bookings: set[Booking], recount: Iterable[SlotId | None]
) -> AllocatorState | None:
    again = frozenset(recount)
    new: dict[SlotId, list[ContainerName]] = {}
    for name, booked in sorted(bookings):
        new.setdefault(booked, []).append(name)
    slots: dict[SlotId, Slot] = {}
    for slot in view.table.slots.values():
        holders = set(new.get(slot.id, ()))
        kept = tuple(c for c in slot.containers if c in holders)
        if slot.id in again:
            kept = tuple(dict.fromkeys(kept))
        containers = kept + tuple(c for c in new.get(slot.id, ()) if c not in kept)
        if containers != slot.containers or slot.id in again:
            slots[slot.id] = replace(
                slot, containers=containers, users=users(slot, containers, view)
            )
        else:
            slots[slot.id] = slot
    old = view.seen.state
    if not isinstance(old, AllocatorState):
        return AllocatorState(slots=slots, mig_enabled=view.table.mig_enabled, digest=Digest(""))
    same = (
        list(slots.items()) == list(old.slots.items()) and view.table.mig_enabled == old.mig_enabled
    )
    return None if same else replace(old, slots=slots, mig_enabled=view.table.mig_enabled)


def users(slot: Slot, containers: Iterable[ContainerName], view: View) -> Mapping[str, int]:
    """The user counters of a slot with these containers."""
    return counted(slot.users, [view.user(name) for name in dict.fromkeys(containers)])


def _records(
    view: View, bookings: set[Booking], names: Iterable[ContainerName]
) -> Iterable[RecordChange]:
    if isinstance(view.seen.metadata, Unknown) or isinstance(view.seen.docker, Unknown):
        return
    held: dict[ContainerName, set[SlotId]] = {}
    for name, slot in bookings:
        held.setdefault(name, set()).add(slot)
    for name in names:
        there = view.record_or_bad(name)
        onto = there.digest if there is not None else None
        if isinstance(there, BadRecord) and not there.replaceable:
            continue
        if not held.get(name):
            if there is not None:
                yield RecordChange(name=name, record=None, onto=onto)
            continue
        record = expected(name, frozenset(held[name]), view)
        if record != there:
            yield RecordChange(name=name, record=record, onto=onto)


def expected(name: ContainerName, slots: frozenset[SlotId], view: View) -> Record:
    """The metadata of a container that holds `slots`: what is right in it stays as it is."""
    old = view.record(name) or Record(container=name, user=None, gpu_id=None)
    if old.container != name:  # inherited from the name it had before
        old = replace(old, container=name, digest=Digest(""))
    container = view.container(name)
    user = view.user(name) or _unclaimed_user(slots, view)
    priority = old.priority
    if priority is None and isinstance(view.limits, Limits):
        priority = view.limits.priority(user)
    booked = old.gpu_id if old.gpu_id is None else view.table.moved.get(old.gpu_id, old.gpu_id)
    record = replace(
        old,
        user=user or NOBODY,
        gpu_id=booked if booked in slots else min(slots),
        priority=priority if priority is not None else 0,
    )
    if old.allocated_at is None:
        created = container.created if container is not None else None
        at = created if created is not None else view.seen.now.wall
        record = replace(record, allocated_at=at, allocated_text=None)
    if container is None:
        return record
    if container.state.alive:
        return replace(record, stopped_at=None, stopped_text=None)
    started = container.started
    outdated = old.stopped_at is None or (started is not None and old.stopped_at < started)
    ended = container.state in (State.EXITED, State.DEAD) and container.finished is not None
    if outdated and ended:
        return replace(record, stopped_at=container.finished, stopped_text=None)
    return record


def _unclaimed_user(slots: frozenset[SlotId], view: View) -> UserName | None:
    """The one user whom these slots count without a container that is known to be theirs."""
    unclaimed: set[str] = set()
    for slot in (view.table.slots[slot] for slot in slots if slot in view.table.slots):
        owners = Counter(str(view.user(name)) for name in dict.fromkeys(slot.containers))
        unclaimed |= (Counter(dict(slot.users)) - owners).keys()
    return UserName(unclaimed.pop()) if len(unclaimed) == 1 else None
