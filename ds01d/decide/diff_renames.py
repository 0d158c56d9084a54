"""The books of a renamed container go where its container is now. Pure."""

from __future__ import annotations

from ds01d.decide.claims import find_claim
from ds01d.decide.diff_evidence import describe_books, pair_slots
from ds01d.decide.index import BooksIndex
from ds01d.model.books import BadRecord, Record
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, Verdicts
from ds01d.model.primitives import ContainerName, SlotId, Unknown
from ds01d.model.reservation import BOOKING_LABEL, describe_processes


def find_rename_drift(
    name: ContainerName, verdict: Verdict, index: BooksIndex, verdicts: Verdicts
) -> Drift | None:
    """The books of `name` go where its container is now, if they have to."""
    new_name = index.renames.current_name.get(name)
    displaced = index.renames.is_displaced(name) and not isinstance(
        index.snapshot.metadata, Unknown
    )
    vacant = isinstance(verdict, Free) and verdict.proof is Proof.RENAMED
    if new_name is None or not (displaced or vacant):
        return None
    booked, target = index.booked_slots.get(name, frozenset()), verdicts.get(new_name)
    given, blocked = _slots_to_follow(name, new_name, index, verdicts), None
    # A record without a booking moves only where it gives the container something under its new
    # name.
    if not booked:
        if index.records.get(name) is None or not isinstance(target, Holds | Undecided):
            return None
        if isinstance(target, Undecided):
            blocked = target.reason
        elif not (given := target.slots - index.booked_slots.get(new_name, frozenset())):
            return None
    for affected in (name, new_name) if displaced else ():
        # A file that we may not replace blocks the move: writing one half of a swap would mix two
        # owners' records.
        record = index.records.get(affected)
        if isinstance(record, BadRecord) and not record.replaceable:
            blocked = record.reason
    container_id = index.checkpoint.identities[name].id
    reason = f"its container was renamed to {new_name}; the booking follows"
    how = f"was renamed to {new_name}"
    record = index.records.get(name)
    booking = find_claim(record, index.containers.get(new_name))
    if isinstance(record, Record) and record.processes:
        processes = describe_processes(record.processes)
        reason = f"{new_name} has what was reserved for {processes}; the booking follows"
        how = f"is {new_name}"
    if booking is not None:
        reason = f"{new_name} claims reservation {booking}; the booking follows"
        how = f"is {new_name}, with label {BOOKING_LABEL}={booking}"
    return Drift(
        kind=Kind.RENAMED_CONTAINER,
        action=Action.MOVE,
        container=name,
        slot=min(booked or given, default=None),
        reason=reason,
        evidence=(*describe_books(name, index), f"docker: container {container_id[:12]} {how}"),
        fingerprint=f"{container_id}|{new_name}",
        earliest=verdict.due if isinstance(verdict, Free) and vacant else None,
        taken=pair_slots(name, booked),
        given=pair_slots(new_name, given),
        blocked=blocked,
        renamed_to=new_name,
    )


def _slots_to_follow(
    before: ContainerName, after: ContainerName, index: BooksIndex, verdicts: Verdicts
) -> frozenset[SlotId]:
    """The slots that go along when `before` is called `after`."""
    booked, target = index.booked_slots.get(before, frozenset()), verdicts.get(after)
    return booked & target.slots if isinstance(target, Holds) else booked


def find_inherited_slots(
    name: ContainerName, index: BooksIndex, verdicts: Verdicts
) -> frozenset[SlotId]:
    """The slots that `name` gets with the books of the names it had before."""
    recorded_names = (
        recorded_name
        for recorded_name in index.renames.previous_names.get(name, ())
        if recorded_name in verdicts
        and find_rename_drift(recorded_name, verdicts[recorded_name], index, verdicts) is not None
    )
    return frozenset().union(
        *(
            _slots_to_follow(recorded_name, name, index, verdicts)
            for recorded_name in recorded_names
        )
    )
