"""How each entry of a history was closed, and which entries were undone.

Pure. Entries come oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ds01d.model.history import Entry, HistoryEntry, Phase


def join_entries(entries: Iterable[Entry]) -> list[HistoryEntry]:
    """Every deed, oldest first."""
    by_id: dict[str, HistoryEntry] = {}
    for entry in entries:
        if entry.phase is Phase.BEGIN:
            by_id[entry.id] = HistoryEntry(entry=entry)
        elif entry.id in by_id:
            by_id[entry.id] = replace(by_id[entry.id], closed=entry.phase, failure=entry.reason)
    return list(by_id.values())


def find_undone(done: Sequence[HistoryEntry]) -> dict[str, str]:
    """Which entry took which back: id → the id of an undo that stands itself."""
    undone_by: dict[str, str] = {}
    for item in reversed(done):
        # Newest first: an undo that was itself undone has undone nothing.
        if item.done and item.entry.id not in undone_by:
            for entry in item.entry.undoes:
                undone_by.setdefault(entry, item.entry.id)
    return undone_by


def change_of(entry: Entry) -> str:
    """The id of the change that an entry is part of."""
    return entry.change or entry.id


def find_newer(
    change: Sequence[HistoryEntry], done: Sequence[HistoryEntry]
) -> Iterator[HistoryEntry]:
    """What was done later to a container of `change` and still stands, newest last.

    What was itself taken back has no effect, nor has what took it back.
    """
    places = {item.entry.id: place for place, item in enumerate(done)}
    last = max(places[item.entry.id] for item in change)
    names = frozenset().union(*(item.entry.names for item in change))
    undone = find_undone(done)
    for item in done[last + 1 :]:
        entry = item.entry
        # An undo of a change that is newer itself leaves nothing behind: both cancel out.
        is_void = entry.undoes and all(places.get(entry_id, -1) > last for entry_id in entry.undoes)
        stands = item.closed is not Phase.FAILED and entry.id not in undone and not is_void
        if stands and names & entry.names:
            yield item
