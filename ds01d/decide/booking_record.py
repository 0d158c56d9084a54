"""The record of a booking: what a new one contains, and what is read from it. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from ds01d.config import Policy
from ds01d.decide.bookings import Records
from ds01d.decide.ownership import has_user
from ds01d.errors import WriteFailed
from ds01d.model.allocation import Allocated
from ds01d.model.books import BadRecord, Record
from ds01d.model.primitives import BookingId, ContainerName, Wall
from ds01d.model.reservation import ReservingProcess


def build_record(
    given: Allocated,
    old: Record | BadRecord | None,
    now: Wall,
    *,
    is_additional: bool,
    process: ReservingProcess | None = None,
) -> Record:
    """The record after an allocation. Raises `WriteFailed` where a broken one has to stay."""
    if isinstance(old, BadRecord) and not old.replaceable:
        raise WriteFailed(old.reason)
    if is_additional and isinstance(old, Record):
        # The record of a container with several slots names the first one. One without a user
        # would count for nobody's limit.
        return old if has_user(old) else replace(old, user=given.user)
    base = (
        old
        if isinstance(old, Record)
        else Record(container=given.container, user=None, gpu_id=None)
    )
    return replace(
        base,
        user=given.user,
        gpu_id=given.slot,
        priority=given.priority,
        allocated_at=now,
        allocated_text=None,
        stopped_at=None,
        stopped_text=None,
        booking=given.id,
        processes=() if process is None else (process,),
    )


def add_reservation(given: Allocated, record: Record, now: Wall, policy: Policy) -> Allocated:
    """The allocation with the ID in its record, and with its end where that is ahead."""
    most_s = policy.creation_grace_s if not record.processes else policy.reservation_limit_s
    # Invariant 4: a time in the future is capped, since a clock may have been set back.
    begun = None if record.allocated_at is None else min(record.allocated_at, now)
    until = None if begun is None or begun + most_s <= now else Wall(begun + most_s)
    return replace(given, id=record.booking, until=until)


def identify_booking(name: ContainerName, record: Record | BadRecord | None) -> BookingId:
    """The ID of a booking: that of its record, else one that follows from it."""
    if not isinstance(record, Record):
        return derive_booking_id(name, None)
    # Decision 311: what other writers booked has no ID. One that is derived needs no memory, and
    # another booking of that name has another one.
    return record.booking or derive_booking_id(name, record)


def derive_booking_id(name: ContainerName, record: Record | None) -> BookingId:
    """The ID of a booking that has none, by its name and its time."""
    allocated = record.allocated_at if record is not None else None
    # repr of a float is the shortest text that gives it back, on every Python: the ID stays after
    # an upgrade.
    text = f"{name}\0{'' if allocated is None else repr(float(allocated))}"
    return BookingId(f"d-{hashlib.sha256(text.encode()).hexdigest()[:16]}")


def find_booking(
    booking: BookingId, records: Records, name: ContainerName | None = None
) -> ContainerName | None:
    """The name under which an allocation is booked; None if it is none any more.

    With `name`: under that one alone.
    """
    if name is not None:
        return name if identify_booking(name, records.get(name)) == booking else None
    names = sorted(
        name
        for name, record in records.items()
        if isinstance(record, Record) and record.booking == booking
    )
    # Several: somebody copied a record by hand, and nobody knows which one is meant.
    return names[0] if len(names) == 1 else None


def has_current_stop(record: Record, started: Wall | None) -> bool:
    """Whether the record has the stop of the current run, not of an earlier one."""
    if record.stopped_at is None:
        return False
    begins = [at for at in (record.allocated_at, started) if at is not None]
    return all(record.stopped_at >= at for at in begins)
