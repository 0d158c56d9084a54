"""The entries of the history as documents, each with its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ds01d.adapters.books.timestamps import parse_time
from ds01d.decide import history_outcomes
from ds01d.decide.short_names import find_by_short_name
from ds01d.documents.values import DisplayTime, DocumentPart
from ds01d.model import history
from ds01d.model.actor import Actor
from ds01d.model.history import BooksState, Entry
from ds01d.model.primitives import Wall
from ds01d.reconcile.history import read_entries

OPEN = "open"  # begun and never closed: its pass was killed just now, the next one looks
UNDONE = "undone"  # done, and taken back since


class EntryDocument(DocumentPart, frozen=True):
    """An entry; `by`: the user for whom it was made, `actor`: the process that made it."""

    id: str
    at: DisplayTime
    outcome: str
    kind: str
    action: str
    container: str | None
    slot: str | None
    booking: str | None
    reason: str
    failure: str
    by: str
    actor: Actor | None
    undoes: tuple[str, ...]
    undone_by: str | None
    evidence: tuple[str, ...]
    before: BooksState | None
    after: BooksState | None


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
        """Whether the entry concerns a container, a slot or a booking, or has this ID."""
        slots = {slot for side in self.entry.sides for slot in side.slots} | {self.entry.slot}
        ids = (self.entry.id, self.entry.booking)
        return subject in slots or subject in self.entry.names or subject in ids


def read_rows(lines: Iterable[bytes]) -> Iterator[HistoryRow]:
    """Every entry, oldest first."""
    entries = history_outcomes.join_entries(read_entries(lines))
    undone_by = history_outcomes.find_undone(entries)
    return (
        HistoryRow(history_entry=entry, undone_by=undone_by.get(entry.entry.id, ""))
        for entry in entries
    )


def build_entry_document(row: HistoryRow) -> EntryDocument:
    entry = row.entry
    return EntryDocument(
        id=entry.id,
        at=DisplayTime(row.at),
        outcome=row.outcome,
        kind=entry.kind,
        action=entry.action,
        container=entry.container,
        slot=entry.slot,
        booking=entry.booking,
        reason=entry.reason,
        failure=row.history_entry.failure,
        by=entry.by,
        actor=entry.actor,
        undoes=entry.undoes,
        undone_by=row.undone_by or None,
        evidence=entry.evidence,
        before=entry.before,
        after=entry.after,
    )


def select_rows(rows: Sequence[HistoryRow], subject: str, uid: int | None) -> list[HistoryRow]:
    """Those about a container (also by its short name: of several that of `uid`), a slot or an ID.

    Raises `Refused` where a short name may mean several.
    """
    exact = [row for row in rows if row.is_about(subject)]
    if exact:
        return exact
    names = {name for row in rows for name in row.entry.names}
    full = find_by_short_name(subject, names, uid)
    return [] if full is None else [row for row in rows if row.is_about(full)]
