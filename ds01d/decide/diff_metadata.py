"""Drifts of metadata alone, where the bookings are right. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.diff_evidence import collect_evidence
from ds01d.decide.expected_books import render_record
from ds01d.decide.index import BooksIndex
from ds01d.model.books import BadRecord, Record, is_recordable
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Free, Holds, Proof, Verdict, VerdictReason
from ds01d.model.primitives import ContainerName


def diff_metadata(name: ContainerName, verdict: Verdict, index: BooksIndex) -> Iterator[Drift]:
    """Differences of the metadata alone: the bookings of `name` are right."""
    existing = index.find_any_record(name)
    if isinstance(existing, BadRecord) and not existing.replaceable:
        yield _record_drift(
            Kind.UNREADABLE_METADATA,
            Action.NOTHING,
            name,
            verdict,
            index,
            reason=existing.reason,
            blocked=existing.reason,
        )
        return
    match verdict:
        case Free() if existing is not None:
            kind = Kind.ORPHANED_METADATA
            reason = (
                "its container is gone"
                if verdict.proof is not Proof.EXPIRED
                else "its hold is over"
            )
            yield _record_drift(kind, Action.REMOVE_METADATA, name, verdict, index, reason=reason)
        case Holds(why=VerdictReason.FOREIGN | VerdictReason.PINNED):
            # What a foreign or pinned container has in its metadata is not ours to correct.
            return
        case Holds(slots=slots, why=why) if (
            not slots and why is not VerdictReason.CREATING and isinstance(existing, BadRecord)
        ):
            kind = Kind.UNREADABLE_METADATA
            yield _record_drift(
                kind, Action.REMOVE_METADATA, name, verdict, index, reason=existing.reason
            )
        # Decision 134: a name that no file can have is booked without metadata.
        case Holds(slots=slots) if slots and is_recordable(name):
            wanted = render_record(name, slots, index)
            if existing is None:
                kind, reason = Kind.MISSING_METADATA, "booked, but has no metadata"
            elif isinstance(existing, BadRecord):
                kind, reason = Kind.UNREADABLE_METADATA, existing.reason
            elif wanted is not existing and wanted != existing:
                # The identity test first: a sweep compares hundreds of records, nearly all
                # unchanged.
                kind, reason = Kind.WRONG_METADATA, _describe_changes(existing, wanted)
            else:
                return
            yield _record_drift(kind, Action.WRITE_METADATA, name, verdict, index, reason=reason)
        case _:
            return


def _record_drift(
    kind: Kind,
    action: Action,
    name: ContainerName,
    verdict: Verdict,
    index: BooksIndex,
    *,
    reason: str,
    blocked: str | None = None,
) -> Drift:
    free = verdict if isinstance(verdict, Free) else None
    existing = index.find_any_record(name)
    return Drift(
        kind=kind,
        action=action,
        container=name,
        slot=existing.gpu_id if isinstance(existing, Record) else None,
        reason=reason,
        evidence=collect_evidence(name, index, verdict),
        fingerprint=f"{existing.digest if existing is not None else ''}|{reason}",
        earliest=free.due if free is not None else None,
        sighted=free.since if free is not None and free.proof is not Proof.EXPIRED else None,
        destroyed=free is not None and free.proof is Proof.DESTROYED,
        blocked=blocked or (free.blocked if free is not None else None),
    )


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
    if old.allocated_at != new.allocated_at:
        changes.append("allocated_at is missing or unreadable")
    return "; ".join(changes)
