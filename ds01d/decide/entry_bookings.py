"""What an entry of the history did to bookings: which it removed and added, when, and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from ds01d.model.accounting import Pair
from ds01d.model.drift import Action
from ds01d.model.history import UNDO, BooksState, Entry
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, Wall

UNDONE: Final = "undone"
RELEASED: Final = "released"


def list_changes(
    entries: Sequence[Entry],
) -> list[tuple[Entry, frozenset[Pair], frozenset[Pair]]]:
    """Each entry of a change with the bookings that it really removed and added."""
    pairs = [(entry, *_list_pairs(entry)) for entry in entries]
    coming = frozenset().union(*(given for _, _, given in pairs))
    return [
        # A booking that is there afterwards, and that nothing gave, was not removed: the undo of a
        # rename to a name that was booked itself.
        (entry, removed - given - (_list_slots(entry.after) - coming), given - removed)
        for entry, removed, given in pairs
    ]


def _list_pairs(entry: Entry) -> tuple[frozenset[Pair], frozenset[Pair]]:
    """The bookings that an entry removed and added."""
    if entry.taken or entry.given:
        return frozenset(entry.taken), frozenset(entry.given)
    # Holders go along with their slot, which the entry shows as a whole.
    if entry.action not in _OF_TABLE or any(side.broken for side in entry.sides):
        return frozenset(), frozenset()
    before, after = _list_slots(entry.before), _list_slots(entry.after)
    return before - after, after - before


_OF_TABLE = frozenset({Action.UPDATE_SLOT.value, Action.REMOVE_SLOT.value, UNDO})


def _list_slots(side: BooksState | None) -> frozenset[Pair]:
    return frozenset(
        (ContainerName(name), SlotId(slot))
        for slot, record in ({} if side is None else side.slots).items()
        if record is not None
        for name in record.containers
    )


def describe_end(entry: Entry) -> str:
    if entry.action == UNDO:
        return UNDONE
    return (
        RELEASED if entry.action == Action.RELEASE.value and not entry.fingerprint else entry.kind
    )


def read_entry_time(entry: Entry) -> Now:
    """When an entry was made, by the clocks of then."""
    try:
        wall = datetime.fromisoformat(entry.at).timestamp()
    except ValueError:
        # A damaged text costs the entry its date; its boot time still orders it.
        wall = 0.0
    return Now(wall=Wall(wall), boot=Boot(entry.boot), boot_id=entry.boot_id)
