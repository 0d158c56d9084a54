"""Taking a change back: what would have to be written, or why it may not be. Pure.

A change is put back exactly as it was, and only if nothing newer contradicts it. What cannot be
known refuses: an admin can fix the source, or edit the books.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ds01d.decide.undo_choice import (
    Reversal,
    UndoContext,
    UndoRefusal,
    UndoRefused,
    UndoRefusedError,
)
from ds01d.decide.undo_containers import check_containers
from ds01d.decide.undo_slots import plan_state, require_unchanged
from ds01d.decide.undo_states import Change, gather_change
from ds01d.model.books import AllocatorState, BadRecord, Record, Unreadable
from ds01d.model.checkpoint import Undone
from ds01d.model.drift import Action, DriftKey, Kind
from ds01d.model.history import BooksState, ContainerFingerprint, HistoryEntry, matches_record
from ds01d.model.primitives import ContainerName, Digest, SlotId, Unknown, Wall


def plan_reversal(
    entries: Sequence[HistoryEntry], context: UndoContext, by: str
) -> Reversal | UndoRefused:
    """What takes a change back, on the books as they are; `by`: who asked for it."""
    change = gather_change(entries)
    try:
        containers = check_containers(change, context)
        records = _check_records(change, context)
        is_rebuild = change.before.broken or change.after.broken
        plan = _plan_broken_state if is_rebuild else plan_state
        reversal = plan(change, context)
    except UndoRefusedError as refusal:
        return refusal.refused
    before, after = change.before.metadata, change.after.metadata
    return replace(
        reversal,
        records={name: (before[name], onto) for name, onto in records.items()},
        before=replace(reversal.before, metadata={name: after[name] for name in records}),
        after=replace(reversal.after, metadata={name: before[name] for name in records}),
        containers=containers,
        hold=_make_undone(change, by, context.snapshot.now.wall, containers),
    )


def _plan_broken_state(change: Change, context: UndoContext) -> Reversal:
    """A state that was rebuilt becomes the broken one again, or the other way round."""
    state = context.snapshot.state
    if change.after.broken:
        return _plan_rebuilt_state(change, context)
    if not isinstance(state, AllocatorState):
        raise UndoRefusedError(
            UndoRefusal.BOOKS_CHANGED, f"the state cannot be read any more: {state.reason}"
        )
    # Of these nothing was copied before the rebuild, so there is no text to restore.
    if change.before.broken.partition(":")[0] in ("missing", "oversized"):
        raise UndoRefusedError(
            UndoRefusal.NOTHING_KEPT, "before it there was no file that was kept"
        )
    for name in change.after.slots.keys() | state.slots.keys():
        require_unchanged(SlotId(name), state.slots.get(SlotId(name)), change.after.slots.get(name))
    return Reversal(
        undoes=change.entries,
        before=BooksState(slots=change.after.slots),
        after=BooksState(broken=change.before.broken),
        onto=state.digest,
        broken=change.before.broken,
    )


def _plan_rebuilt_state(change: Change, context: UndoContext) -> Reversal:
    """What was rebuilt comes back from its copy, if that is the same."""
    state = context.snapshot.state
    if not isinstance(state, Unreadable) or state.digest != change.after.broken:
        raise UndoRefusedError(
            UndoRefusal.BOOKS_CHANGED, "the state is not the broken file any more"
        )
    last_good = state.last_good
    slots = {} if last_good is None else last_good.slots
    same_slots = slots.keys() == change.before.slots.keys()
    if not same_slots or not all(
        matches_record(slots[SlotId(n)], record) for n, record in change.before.slots.items()
    ):
        reason = "the copy that was rebuilt from is gone; fix: ds01ctl thaw, then ds01d rebuilds it"
        raise UndoRefusedError(UndoRefusal.NOTHING_KEPT, reason)
    return Reversal(
        undoes=change.entries,
        before=change.after,
        after=change.before,
        state=last_good,
        onto=state.digest,
    )


def _check_records(change: Change, context: UndoContext) -> Mapping[ContainerName, Digest | None]:
    """The files that the change wrote, all as it left them, with their digests."""
    metadata = context.snapshot.metadata
    if not change.after.metadata:
        return {}
    if isinstance(metadata, Unknown):
        raise UndoRefusedError(
            UndoRefusal.SOURCE_SILENT, f"the metadata cannot be read: {metadata.reason}"
        )
    digests: dict[ContainerName, Digest | None] = {}
    for text, after in change.after.metadata.items():
        name = ContainerName(text)
        # Decision 34: an undo is strict. A file that somebody has written since has news in it.
        if context.texts.get(name) != after:
            raise UndoRefusedError(
                UndoRefusal.BOOKS_CHANGED, f"the metadata of {name} has changed since"
            )
        record = metadata.get(name)
        digests[name] = record.digest if isinstance(record, Record | BadRecord) else None
    return digests


def _make_undone(
    change: Change, by: str, now: Wall, containers: Mapping[ContainerName, ContainerFingerprint]
) -> Undone | None:
    """Nothing where an undoing is taken back: that lets go of what was held."""
    # Undoing an undo does the repair again, so nothing is left to prevent.
    if any(entry.undoes for entry in change.entries):
        return None
    # A broken file has no bookings to compare; the whole state is guarded by the drift's
    # fingerprint alone.
    rebuilt = any(entry.kind == Kind.UNREADABLE_STATE for entry in change.entries)
    return Undone(
        by=by,
        since=now,
        taken=frozenset() if rebuilt else change.given,
        given=frozenset() if rebuilt else change.taken,
        containers={} if rebuilt else containers,
        records=dict.fromkeys(map(ContainerName, change.after.metadata), Digest("")),
        drifts={
            DriftKey(e.kind, ContainerName(""), SlotId(e.slot or "")): e.fingerprint
            for e in change.entries
            if e.container is None and e.action != Action.NOTHING
        },
    )
