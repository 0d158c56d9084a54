"""Naming the differences between the books and what is right, as if everything were due. Pure.

A drift is a name with evidence for people, metrics and logs; what it changes is in its `taken` and
`given`, and the books are computed from those.
"""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.absence import decide_absent
from ds01d.decide.diff_counters import diff_counters
from ds01d.decide.diff_evidence import collect_evidence, format_slots, pair_slots
from ds01d.decide.diff_metadata import diff_metadata
from ds01d.decide.diff_renames import find_inherited_slots, find_rename_drift
from ds01d.decide.index import BooksIndex
from ds01d.decide.renames import NO_RENAMES
from ds01d.decide.subject import gather_orphan
from ds01d.model.books import Record
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, Verdicts
from ds01d.model.primitives import ContainerName, SlotId, Source
from ds01d.model.reservation import describe_processes

_NO_SLOTS: frozenset[SlotId] = frozenset()


def diff_books(index: BooksIndex, verdicts: Verdicts) -> Iterator[Drift]:
    """Every difference between the books and the verdicts."""
    yield from index.table.drifts
    for name, verdict in verdicts.items():
        # As of nearly all names in each sweep.
        if _is_booked_as_held(name, verdict, index):
            yield from diff_metadata(name, verdict, index)
            continue
        move = find_rename_drift(name, verdict, index, verdicts)
        if move is not None:
            yield move
        if name in index.renames.orphans:
            yield from _diff_orphaned(name, index)
        # Decision 67: what is booked under this name belongs to another container. Once its books
        # have followed, the next pass decides the rest.
        if index.renames.is_displaced(name):
            continue
        drifts = tuple(_diff_bookings(name, verdict, index, verdicts))
        yield from drifts
        # Decision 2: a booking and its metadata are one drift; the metadata follows from the
        # booking that is repaired.
        if move is None and not drifts and name not in index.renames.previous_names:
            yield from diff_metadata(name, verdict, index)
    yield from diff_counters(index, verdicts)


def _is_booked_as_held(name: ContainerName, verdict: Verdict, index: BooksIndex) -> bool:
    """Whether a container has its name, and is booked in the slots that it holds."""
    return (
        index.renames is NO_RENAMES
        and isinstance(verdict, Holds)
        and verdict.slots == index.booked_slots.get(name, _NO_SLOTS)
    )


def _diff_bookings(
    name: ContainerName, verdict: Verdict, index: BooksIndex, verdicts: Verdicts
) -> Iterator[Drift]:
    booked = index.booked_slots.get(name, frozenset())
    match verdict:
        case Undecided():
            # Bookings that our write overwrote are restored whatever the verdict will be.
            for slot in sorted(index.slots_to_merge.get(name, frozenset()) - booked):
                yield _booking_drift(name, slot, verdict, index)
            # An absence that cannot be proven for now: it waits, and is seen to.
            is_absent = index.engine is not None and index.containers.get(name) is None
            if is_absent and verdict.needs is Source.NVML:
                for slot in sorted(booked):
                    yield _release_drift(name, slot, verdict, index)
        case Free(proof=Proof.RENAMED):
            return
        case Free():
            for slot in sorted(booked):
                yield _release_drift(name, slot, verdict, index)
        case Holds(slots=slots) if slots != booked:
            inherited = find_inherited_slots(name, index, verdicts)
            yield from _diff_held_slots(name, verdict, booked, inherited, index)
        case Holds():
            return


def _diff_orphaned(name: ContainerName, index: BooksIndex) -> Iterator[Drift]:
    """What is booked for a container that is gone, and whose name another one has taken.

    That one's books come here in the same change, so they wait for the proof of this absence.
    """
    absent = decide_absent(gather_orphan(name, index), index)
    if not isinstance(absent, Holds):
        for slot in sorted(index.booked_slots.get(name, frozenset())):
            yield _release_drift(name, slot, absent, index)


def _release_drift(
    name: ContainerName, slot: SlotId, verdict: Free | Undecided, index: BooksIndex
) -> Drift:
    """The release of a booking; it waits, blocked, while the absence cannot be proven."""
    free = verdict if isinstance(verdict, Free) else None
    is_expired = free is not None and free.proof is Proof.EXPIRED
    is_over = free is not None and free.proof is Proof.PROCESS_ENDED
    return Drift(
        kind=Kind.EXPIRED_HOLD if is_expired else Kind.STALE_ALLOCATION,
        action=Action.RELEASE,
        container=name,
        slot=slot,
        reason=_describe_release(name, free, index),
        evidence=collect_evidence(name, index, verdict),
        fingerprint="unproven" if free is None else f"{free.proof}|{free.known_id}",
        earliest=free.due if free is not None else None,
        # An absence was watched since its first sight, which counts for the settle time; the end of
        # a retention or of a process is a new fact that has to settle.
        first_seen=free.since if free is not None and not (is_expired or is_over) else None,
        taken=pair_slots(name, {slot}),
        reported=is_over
        or (free is not None and (free.proof is Proof.DESTROYED or free.is_reported)),
        blocked=verdict.blocked if isinstance(verdict, Free) else verdict.reason,
    )


def _describe_release(name: ContainerName, free: Free | None, index: BooksIndex) -> str:
    record = index.records.get(name)
    if free is not None and free.proof is Proof.EXPIRED:
        return "its hold after the stop is over"
    if free is not None and free.proof is Proof.PROCESS_ENDED and isinstance(record, Record):
        processes = describe_processes(record.processes)
        return f"reserved for {processes} of {record.user}, which ended without a container"
    return "booked, but there is no such container"


def _diff_held_slots(
    name: ContainerName,
    verdict: Holds,
    booked: frozenset[SlotId],
    inherited: frozenset[SlotId],
    index: BooksIndex,
) -> Iterator[Drift]:
    """`inherited`: the slots that come with the books of its previous names."""
    taken, given = booked - verdict.slots, verdict.slots - booked - inherited
    reason = f"booked in {format_slots(booked)}, but has {format_slots(verdict.slots)}"
    evidence = collect_evidence(name, index, verdict)
    fingerprint = f"{sorted(booked)}→{sorted(verdict.slots)}"
    # One move instead of a release and a booking: in between, another container could be given the
    # slot.
    if taken and given:
        yield Drift(
            kind=Kind.WRONG_SLOT,
            action=Action.MOVE,
            container=name,
            slot=min(given),
            reason=reason,
            evidence=evidence,
            fingerprint=fingerprint,
            taken=pair_slots(name, taken),
            given=pair_slots(name, given),
        )
        return
    for slot in sorted(taken):
        yield Drift(
            kind=Kind.DUPLICATE_ALLOCATION,
            action=Action.RELEASE,
            container=name,
            slot=slot,
            reason=reason,
            evidence=evidence,
            fingerprint=fingerprint,
            taken=pair_slots(name, {slot}),
        )
    for slot in sorted(given):
        yield _booking_drift(name, slot, verdict, index)


def _booking_drift(
    name: ContainerName, slot: SlotId, verdict: Holds | Undecided, index: BooksIndex
) -> Drift:
    # Bookings that another writer lost to our own write of the file: they come back at once,
    # without a settle time.
    is_merge = slot in index.slots_to_merge.get(name, ())
    is_lost = is_merge or index.records.get(name) is not None
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
        given=pair_slots(name, {slot}),
        urgent=is_merge,
    )
