"""What the entries of a history tell together: how each was closed, and which were taken back.

Pure. Entries come oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ds01d.model.history import Entry, HistoryEntry, Phase


def join_entries(entries: Iterable[Entry]) -> list[HistoryEntry]:
    """Every deed, oldest first."""
    found: dict[str, HistoryEntry] = {}
    for entry in entries:
        if entry.phase is Phase.BEGIN:
            found[entry.id] = HistoryEntry(entry=entry)
        elif entry.id in found:
            found[entry.id] = replace(found[entry.id], closed=entry.phase, failure=entry.reason)
    return list(found.values())


def find_undone(done: Sequence[HistoryEntry]) -> dict[str, str]:
    """Which entry took which back: id → the id of an undo that stands itself."""
    by: dict[str, str] = {}
    for deed in reversed(done):
        if deed.done and deed.entry.id not in by:
            for entry in deed.entry.undoes:
                by.setdefault(entry, deed.entry.id)
    return by


def change_of(entry: Entry) -> str:
    """The id of the change that an entry is part of."""
    return entry.change or entry.id


def find_newer(
    change: Sequence[HistoryEntry], done: Sequence[HistoryEntry]
) -> Iterator[HistoryEntry]:
    """What was done later to a container of `change` and still stands, newest last.

    What was itself taken back has no effect, nor has what took it back.
    """
    places = {deed.entry.id: place for place, deed in enumerate(done)}
    last = max(places[deed.entry.id] for deed in change)
    names = frozenset().union(*(deed.entry.names for deed in change))
    gone = find_undone(done)
    for deed in done[last + 1 :]:
        entry = deed.entry
        void = entry.undoes and all(places.get(one, -1) > last for one in entry.undoes)
        stands = deed.closed is not Phase.FAILED and entry.id not in gone and not void
        if stands and names & entry.names:
            yield deed
