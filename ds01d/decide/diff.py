"""Naming the differences between the books and what is right, as if everything were due. Pure.

A drift is a name with evidence for people, metrics and logs; what it changes is in its `taken` and
`given`, and the books are computed from those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ds01d.decide.absence import decide_absent
from ds01d.decide.diff_counters import diff_counters
from ds01d.decide.diff_evidence import collect_evidence, describe_books, format_slots
from ds01d.decide.diff_metadata import diff_metadata
from ds01d.decide.expected_books import Booking
from ds01d.decide.index import BooksIndex
from ds01d.decide.subject import gather_orphan
from ds01d.model.books import BadRecord
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict
from ds01d.model.primitives import ContainerName, SlotId, Source, Unknown

Verdicts = Mapping[ContainerName, Verdict]


def diff_books(index: BooksIndex, verdicts: Verdicts) -> Iterator[Drift]:
    """Every difference between the books and the verdicts."""
    yield from index.table.drifts
    for name, verdict in verdicts.items():
        move = _move_drift(name, verdict, index, verdicts)
        if move is not None:
            yield move
        if name in index.renames.orphans:
            yield from _diff_orphaned(name, index)
        # Decision 67: what is booked under this name belongs to another container. Once its books
        # have followed, the next pass decides the rest.
        if index.renames.is_displaced(name):
            continue  # the rest follows once its books have moved
        drifts = tuple(_diff_bookings(name, verdict, index, verdicts))
        yield from drifts
        # Decision 2: a booking and its metadata are one drift; the metadata follows from the
        # booking that is repaired.
        if move is None and not drifts and name not in index.renames.previous_names:
            yield from diff_metadata(name, verdict, index)
    yield from diff_counters(index, verdicts)


class _Difference(NamedTuple):
    taken: frozenset[SlotId]
    given: frozenset[SlotId]


def _diff_bookings(
    name: ContainerName, verdict: Verdict, index: BooksIndex, verdicts: Verdicts
) -> Iterator[Drift]:
    booked = index.booked_slots.get(name, frozenset())
    match verdict:
        case Undecided():
            yield from _restore_merged(name, verdict, booked, index)
            yield from _report_unproven(name, verdict, booked, index)
        case Free(proof=Proof.RENAMED):
            return
        case Free():
            for slot in sorted(booked):
                yield _release_drift(name, slot, verdict, index)
        case Holds(slots=slots) if slots == booked:
            return
        case Holds():
            inherited = _inherited_slots(name, index, verdicts)
            yield from _diff_held_slots(
                name,
                verdict,
                booked,
                _Difference(booked - verdict.slots, verdict.slots - booked - inherited),
                index,
            )


def _restore_merged(
    name: ContainerName, verdict: Undecided, booked: frozenset[SlotId], index: BooksIndex
) -> Iterator[Drift]:
    """Bookings that our write overwrote are restored even while the verdict is undecided."""
    for slot in sorted(index.slots_to_merge.get(name, frozenset()) - booked):
        yield _booking_drift(name, slot, verdict, index)


def _report_unproven(
    name: ContainerName, verdict: Undecided, booked: frozenset[SlotId], index: BooksIndex
) -> Iterator[Drift]:
    """An absence that cannot be proven for now: held, and seen to be."""
    if (
        index.engine is None
        or index.find_container(name) is not None
        or verdict.needs is not Source.NVML
    ):
        return
    for slot in sorted(booked):
        yield _blocked_release(name, slot, verdict, index)


def _blocked_release(
    name: ContainerName, slot: SlotId, verdict: Undecided, index: BooksIndex
) -> Drift:
    return Drift(
        kind=Kind.STALE_ALLOCATION,
        action=Action.RELEASE,
        container=name,
        slot=slot,
        reason="booked, but there is no such container",
        evidence=collect_evidence(name, index, verdict),
        fingerprint="unproven",
        taken=frozenset({(name, slot)}),
        blocked=verdict.reason,
    )


def _release_drift(name: ContainerName, slot: SlotId, verdict: Free, index: BooksIndex) -> Drift:
    # An absence was watched since its first sight, which counts for the settle time; the end of a
    # hold is a new fact that has to settle.
    is_expired = verdict.proof is Proof.EXPIRED
    return Drift(
        kind=Kind.EXPIRED_HOLD if is_expired else Kind.STALE_ALLOCATION,
        action=Action.RELEASE,
        container=name,
        slot=slot,
        reason="its hold after the stop is over"
        if is_expired
        else "booked, but there is no such container",
        evidence=collect_evidence(name, index, verdict),
        fingerprint=f"{verdict.proof}|{verdict.known_id}",
        earliest=verdict.due,
        sighted=None if is_expired else verdict.since,
        taken=frozenset({(name, slot)}),
        destroyed=verdict.proof is Proof.DESTROYED,
        blocked=verdict.blocked,
    )


def _move_drift(
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
        if index.find_any_record(name) is None or not isinstance(target, Holds | Undecided):
            return None
        if isinstance(target, Undecided):
            blocked = target.reason
        elif not (given := target.slots - index.booked_slots.get(new_name, frozenset())):
            return None
    for affected in (name, new_name) if displaced else ():
        # A file that we may not replace blocks the move: writing one half of a swap would mix two
        # owners' records.
        record = index.find_any_record(affected)
        if isinstance(record, BadRecord) and not record.replaceable:
            blocked = record.reason
    container_id = index.checkpoint.identities[name].id
    return Drift(
        kind=Kind.RENAMED_CONTAINER,
        action=Action.MOVE,
        container=name,
        slot=min(booked or given, default=None),
        reason=f"its container was renamed to {new_name}; the booking follows",
        evidence=(
            *describe_books(name, index),
            f"docker: container {container_id[:12]} was renamed to {new_name}",
        ),
        fingerprint=f"{container_id}|{new_name}",
        earliest=verdict.due if isinstance(verdict, Free) and vacant else None,
        taken=_pair_slots(name, booked),
        given=_pair_slots(new_name, given),
        blocked=blocked,
        renamed_to=new_name,
    )


def _diff_orphaned(name: ContainerName, index: BooksIndex) -> Iterator[Drift]:
    """What is booked for a container that is gone, and whose name another one has taken.

    That one's books come here in the same change, so they wait for the proof of this absence.
    """
    booked = index.booked_slots.get(name, frozenset())
    match decide_absent(gather_orphan(name, index), index):
        case Free() as absent:
            for slot in sorted(booked):
                yield _release_drift(name, slot, absent, index)
        case Undecided() as undecided:
            for slot in sorted(booked):
                yield _blocked_release(name, slot, undecided, index)
        case _:
            return


def _slots_to_follow(
    before: ContainerName, after: ContainerName, index: BooksIndex, verdicts: Verdicts
) -> frozenset[SlotId]:
    """The slots that go along when `before` is called `after`."""
    booked, target = index.booked_slots.get(before, frozenset()), verdicts.get(after)
    return booked & target.slots if isinstance(target, Holds) else booked


def _inherited_slots(
    name: ContainerName, index: BooksIndex, verdicts: Verdicts
) -> frozenset[SlotId]:
    """The slots that `name` gets with the books of the names it had before."""
    recorded_names = (
        recorded_name
        for recorded_name in index.renames.previous_names.get(name, ())
        if recorded_name in verdicts
        and _move_drift(recorded_name, verdicts[recorded_name], index, verdicts) is not None
    )
    return frozenset().union(
        *(
            _slots_to_follow(recorded_name, name, index, verdicts)
            for recorded_name in recorded_names
        )
    )


def _diff_held_slots(
    name: ContainerName,
    verdict: Holds,
    booked: frozenset[SlotId],
    difference: _Difference,
    index: BooksIndex,
) -> Iterator[Drift]:
    taken, given = difference
    evidence = collect_evidence(name, index, verdict)
    fingerprint = f"{sorted(booked)}→{sorted(verdict.slots)}"
    # One move instead of a release and a booking: in between, another container could be given the
    # slot.
    if taken and given:
        slot = min(given)
        yield Drift(
            kind=Kind.WRONG_SLOT,
            action=Action.MOVE,
            container=name,
            slot=slot,
            reason=f"booked in {format_slots(booked)}, but has {format_slots(verdict.slots)}",
            evidence=evidence,
            fingerprint=fingerprint,
            taken=_pair_slots(name, taken),
            given=_pair_slots(name, given),
        )
        return
    for slot in sorted(taken):
        yield Drift(
            kind=Kind.DUPLICATE_ALLOCATION,
            action=Action.RELEASE,
            container=name,
            slot=slot,
            reason=f"booked in {format_slots(booked)}, but has {format_slots(verdict.slots)}",
            evidence=evidence,
            fingerprint=fingerprint,
            taken=_pair_slots(name, {slot}),
        )
    for slot in sorted(given):
        yield _booking_drift(name, slot, verdict, index)


def _booking_drift(
    name: ContainerName, slot: SlotId, verdict: Holds | Undecided, index: BooksIndex
) -> Drift:
    # Bookings that another writer lost to our own write of the file: they come back at once,
    # without a settle time.
    is_merge = slot in index.slots_to_merge.get(name, ())
    is_lost = is_merge or index.find_any_record(name) is not None
    holds = verdict.slots if isinstance(verdict, Holds) else index.slots_to_merge[name]
    booked = index.booked_slots.get(name, frozenset())
    return Drift(
        kind=Kind.LOST_ALLOCATION if is_lost else Kind.UNTRACKED_CONTAINER,
        action=Action.BOOK,
        container=name,
        slot=slot,
        reason="its booking was lost" if is_lost else "uses this device without a booking",
        evidence=collect_evidence(name, index, verdict),
        fingerprint=f"{sorted(booked)}→{sorted(holds)}",
        given=_pair_slots(name, {slot}),
        urgent=is_merge,
    )


def _pair_slots(name: ContainerName, slots: frozenset[SlotId] | set[SlotId]) -> frozenset[Booking]:
    return frozenset((name, slot) for slot in slots)
