"""Drifts of a slot's own counters and list. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.expected_books import count_users
from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import SlotId


def diff_counters(index: BooksIndex, verdicts: Verdicts) -> Iterator[Drift]:
    """Slots whose counters or lists contradict themselves."""
    # A partial pass knows only its own containers; counters of other slots would look wrong to it.
    sweep = index.snapshot.names is None
    for slot in index.table.slots.values():
        if not sweep and verdicts.keys().isdisjoint(slot.containers):
            continue
        # A double listing also makes the counters wrong; one recount repairs both, so only one
        # drift is reported.
        if len(set(slot.containers)) != len(slot.containers):
            doubles = sorted({c for c in slot.containers if slot.containers.count(c) > 1})
            reason = f"{', '.join(doubles)} is listed more than once"
            yield _recount_drift(Kind.DUPLICATE_ALLOCATION, slot.id, reason)
            continue
        counted = count_users(slot, slot.containers, index)
        # Decision 202: those of derived books are counted from the same owners.
        if index.config.books.kind == "files" and counted != dict(slot.users):
            booked, due = _format_counts(slot.users), _format_counts(counted)
            reason = (
                f"user counters are {booked or 'no user'},"
                f" the containers belong to {due or 'no user'}"
            )
            # The history and the undo guards of earlier versions have this text: never reworded.
            known_as = f"users say {booked or 'nobody'}, the containers are of {due or 'nobody'}"
            yield _recount_drift(Kind.WRONG_COUNT, slot.id, reason, known_as)


def _recount_drift(kind: Kind, slot: SlotId, reason: str, fingerprint: str = "") -> Drift:
    return Drift(
        kind=kind,
        action=Action.RECOUNT,
        container=None,
        slot=slot,
        reason=reason,
        evidence=(f"state: {reason}",),
        fingerprint=fingerprint or reason,
    )


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{user}: {count}" for user, count in counts.items())
