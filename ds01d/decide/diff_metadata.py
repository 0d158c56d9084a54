"""Drifts of metadata alone, where the bookings are right. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ds01d.decide.diff_evidence import collect_evidence
from ds01d.decide.expected_books import render_record
from ds01d.decide.index import BooksIndex
from ds01d.model.books import BadRecord, Record, is_recordable
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Free, Holds, Proof, Verdict, VerdictReason
from ds01d.model.primitives import ContainerName
from ds01d.model.reservation import describe_processes

_GONE = {Proof.EXPIRED: "its hold is over", Proof.PROCESS_ENDED: "its process has ended"}
"""What is a new fact that has to settle, unlike an absence that was watched."""


def diff_metadata(name: ContainerName, verdict: Verdict, index: BooksIndex) -> Sequence[Drift]:
    """The difference of the metadata alone, if there is one: the bookings of `name` are right."""
    existing = index.records.get(name)
    difference = _find_difference(name, verdict, existing, index)
    if difference is None:
        return ()
    kind, action, reason = difference
    free = verdict if isinstance(verdict, Free) else None
    blocked = free.blocked if free is not None else None
    drift = Drift(
        kind=kind,
        action=action,
        container=name,
        slot=existing.gpu_id if isinstance(existing, Record) else None,
        reason=reason,
        evidence=collect_evidence(name, index, verdict),
        fingerprint=f"{existing.digest if existing is not None else ''}|{reason}",
        earliest=free.due if free is not None else None,
        first_seen=free.since if free is not None and free.proof not in _GONE else None,
        reported=free is not None
        and (free.proof in (Proof.DESTROYED, Proof.PROCESS_ENDED) or free.is_reported),
        blocked=reason if action is Action.NOTHING else blocked,
    )
    return (drift,)


def _find_difference(
    name: ContainerName, verdict: Verdict, existing: Record | BadRecord | None, index: BooksIndex
) -> tuple[Kind, Action, str] | None:
    # Decision 73: a file that may be somebody else's is reported, whatever the verdict is.
    if isinstance(existing, BadRecord) and not existing.replaceable:
        return Kind.UNREADABLE_METADATA, Action.NOTHING, existing.reason
    # Decision 204: a reservation is over once its container has by its request what was reserved.
    if index.is_derived(name):
        is_over = existing is not None and existing.digest and name in index.containers
        if is_over and isinstance(verdict, Holds) and not index.needs_record(name):
            reason = "its container exists: the reservation is over"
            return Kind.ORPHANED_METADATA, Action.REMOVE_METADATA, reason
        return None
    match verdict:
        case Free() if existing is not None:
            reason = _GONE.get(verdict.proof, "its container is gone")
            return Kind.ORPHANED_METADATA, Action.REMOVE_METADATA, reason
        case Holds(why=VerdictReason.FOREIGN | VerdictReason.PINNED):
            # What a foreign or pinned container has in its metadata is not ours to correct.
            return None
        case Holds(slots=slots, why=why) if not slots and isinstance(existing, BadRecord):
            # A wrapper that is creating the container may be writing it at this moment.
            if why is VerdictReason.CREATING:
                return None
            return Kind.UNREADABLE_METADATA, Action.REMOVE_METADATA, existing.reason
        # Decision 134: a name that no file can have is booked without metadata.
        case Holds(slots=slots) if slots and is_recordable(name):
            if existing is None:
                return Kind.MISSING_METADATA, Action.WRITE_METADATA, "booked, but has no metadata"
            if isinstance(existing, BadRecord):
                return Kind.UNREADABLE_METADATA, Action.WRITE_METADATA, existing.reason
            wanted = render_record(name, slots, index)
            # The identity test first: a sweep compares hundreds of records, nearly all unchanged.
            if wanted is not existing and wanted != existing:
                changes = _describe_changes(existing, wanted)
                return Kind.WRONG_METADATA, Action.WRITE_METADATA, changes
    return None


def _describe_changes(old: Record, new: Record) -> str:
    changes = [
        f"{key} is {was!r}, should be {should!r}"
        for key, was, should in (
            ("user", old.user, new.user),
            ("gpu_id", old.gpu_id, new.gpu_id),
            ("priority", old.priority, new.priority),
        )
        if was != should
    ]
    if (old.stopped_at, old.stopped_text) != (new.stopped_at, new.stopped_text):
        if new.stopped_at is None:
            changes.append("stopped_at is set, but it runs")
        elif old.stopped_at is None:
            changes.append("stopped_at is missing or unreadable")
        else:
            changes.append("stopped_at is from an earlier stop")
    if old.processes != new.processes:
        processes = describe_processes(old.processes)
        changes.append(f"its container exists, and {processes} ended")
    if old.allocated_at != new.allocated_at:
        changes.append("allocated_at is missing or unreadable")
    return "; ".join(changes)
