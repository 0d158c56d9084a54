"""The entries of the history, each with its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from ds01d.adapters.books.timestamps import parse_time
from ds01d.cli.output.blocks import Cell, Document, Table, Tone, Toned
from ds01d.cli.output.text import DisplayTime
from ds01d.decide import history_outcomes
from ds01d.model import history
from ds01d.model.history import Entry
from ds01d.model.primitives import Wall
from ds01d.reconcile.history import read_entries

OPEN = "open"  # begun and never closed: its pass was killed just now, the next one looks
UNDONE = "undone"  # done, and taken back since
_TONES = {"done": Tone.GOOD, "failed": Tone.BAD, OPEN: Tone.WARN, UNDONE: Tone.FAINT}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """An entry as shown; `undone_by`: the ID of the entry that undid it, or ""."""

    history_entry: history.HistoryEntry
    undone_by: str = ""

    @property
    def entry(self) -> Entry:
        return self.history_entry.entry

    @property
    def outcome(self) -> str:
        if self.undone_by:
            return UNDONE
        return OPEN if self.history_entry.closed is None else self.history_entry.closed.value

    @property
    def at(self) -> Wall:
        """When it was begun; 0 if the time is invalid."""
        return parse_time(self.entry.at) or Wall(0.0)

    def is_about(self, subject: str) -> bool:
        """Whether the entry concerns a container or a slot, or has this ID."""
        slots = {slot for side in self.entry.sides for slot in side.slots} | {self.entry.slot}
        return subject in slots or subject in self.entry.names or subject == self.entry.id


def read_rows(lines: Iterable[bytes]) -> Iterator[HistoryRow]:
    """Every entry, oldest first."""
    entries = history_outcomes.join_entries(read_entries(lines))
    undone_by = history_outcomes.find_undone(entries)
    return (
        HistoryRow(history_entry=entry, undone_by=undone_by.get(entry.entry.id, ""))
        for entry in entries
    )


def row_document(row: HistoryRow) -> dict[str, Document]:
    """An entry, for JSON."""
    entry = row.entry
    return {
        "id": entry.id,
        "at": DisplayTime(row.at),
        "outcome": row.outcome,
        "kind": entry.kind,
        "action": entry.action,
        "container": entry.container,
        "slot": entry.slot,
        "reason": entry.reason,
        "failure": row.history_entry.failure,
        "by": entry.by,
        "actor": None if entry.actor is None else msgspec.to_builtins(entry.actor),
        "undoes": entry.undoes,
        "undone_by": row.undone_by or None,
        "evidence": entry.evidence,
        "before": msgspec.to_builtins(entry.before),
        "after": msgspec.to_builtins(entry.after),
    }


def history_table(rows: Sequence[HistoryRow], *, verbose: bool = False) -> Table:
    """Entries, a row each."""
    columns = ("at", "id", "outcome", "kind", "action", "container", "slot", "by", "reason")
    return Table(
        columns,
        [_row_cells(row) for row in rows],
        [row.entry.evidence for row in rows] if verbose else [],
    )


def _row_cells(row: HistoryRow) -> list[Cell]:
    entry = row.entry
    return [
        DisplayTime(row.at),
        entry.id,
        Toned(row.outcome, _TONES.get(row.outcome, Tone.PLAIN)),
        entry.kind,
        entry.action,
        entry.container,
        entry.slot,
        entry.by if entry.actor is None else entry.actor.short,
        "; ".join(part for part in (entry.reason, row.history_entry.failure) if part),
    ]
