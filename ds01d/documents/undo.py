"""What an undo restored, or would restore, as a document."""

from __future__ import annotations

from ds01d.decide.undo_choice import Reversal
from ds01d.documents.values import DocumentPart
from ds01d.reconcile.undo import UndoResult


class RefusedUndo(DocumentPart, frozen=True):
    """Why nothing is undone."""

    why: str
    reason: str


class UndoDocument(DocumentPart, frozen=True):
    """The object that `undo --json` prints. `id`: the entry of the undo, None in a dry run."""

    id: str | None
    asked: str
    undone: bool
    undoes: tuple[str, ...]
    does: tuple[str, ...]
    refused: RefusedUndo | None
    troubles: tuple[str, ...]


def build_undo_document(entry: str, result: UndoResult) -> UndoDocument:
    refused, reversal = result.refused, result.reversal
    return UndoDocument(
        id=result.entry or None,
        asked=entry,
        undone=bool(result.entry),
        undoes=() if reversal is None else tuple(undone.id for undone in reversal.undoes),
        does=() if reversal is None else tuple(_describe_changes(reversal)),
        refused=None if refused is None else RefusedUndo(why=refused.why, reason=refused.reason),
        troubles=result.warnings,
    )


def _describe_changes(reversal: Reversal) -> list[str]:
    """What is restored, a line each."""
    changes = [f"{name} is booked in slot {slot} again" for name, slot in sorted(reversal.given)]
    changes += [f"{name} leaves slot {slot}" for name, slot in sorted(reversal.taken)]
    booked = {slot for _, slot in reversal.given | reversal.taken}
    changes += [
        f"slot {slot} is as it was" if before is not None else f"slot {slot} goes"
        for slot, before in sorted(reversal.after.slots.items())
        if slot not in booked
    ]
    if reversal.broken:
        changes.append(
            "the state is the broken file again: the allocator refuses until it is thawed"
        )
    changes += [
        f"the metadata of {name} is as it was" if text is not None else f"{name} has no metadata"
        for name, (text, _) in sorted(reversal.records.items())
    ]
    return changes
