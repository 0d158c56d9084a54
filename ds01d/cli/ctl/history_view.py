"""The entries of the history as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ds01d.cli.output.blocks import Cell, Table, Tone, Toned
from ds01d.documents.history import OPEN, UNDONE, EntryDocument

_TONES = {"done": Tone.GOOD, "failed": Tone.BAD, OPEN: Tone.WARN, UNDONE: Tone.FAINT}


def history_table(entries: Sequence[EntryDocument], *, verbose: bool = False) -> Table:
    """Entries, a row each."""
    columns = ("at", "id", "outcome", "kind", "action", "container", "slot", "by", "reason")
    return Table(
        columns,
        [_entry_cells(entry) for entry in entries],
        [entry.evidence for entry in entries] if verbose else [],
    )


def _entry_cells(entry: EntryDocument) -> list[Cell]:
    return [
        entry.at,
        entry.id,
        Toned(entry.outcome, _TONES.get(entry.outcome, Tone.PLAIN)),
        entry.kind,
        entry.action,
        entry.container,
        entry.slot,
        entry.by if entry.actor is None else entry.actor.short,
        "; ".join(part for part in (entry.booking, entry.reason, entry.failure) if part),
    ]
