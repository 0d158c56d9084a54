"""Which change an admin may undo, and what an undo writes or is refused for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ds01d.decide.history_outcomes import change_of, find_newer, find_undone
from ds01d.model.books import AllocatorState, Booking, Slot
from ds01d.model.checkpoint import Checkpoint, Undone
from ds01d.model.history import BooksState, ContainerFingerprint, Entry, HistoryEntry, Phase
from ds01d.model.primitives import ContainerName, DeviceUuid, Digest, SlotId, Word
from ds01d.model.snapshot import Snapshot

SlotParser = Callable[[SlotId, str], Slot]


class UndoRefusal(Word):
    """Why a change is not taken back."""

    NO_SUCH_ENTRY = "no-such-entry"
    NOT_DONE = "not-done"
    ALREADY_UNDONE = "already-undone"
    NEWER_CHANGE = "newer-change"
    SOURCE_SILENT = "source-silent"
    OTHER_ENGINE = "other-engine"
    CONTAINER_CHANGED = "container-changed"
    SLOT_HELD = "slot-held"
    DEVICE_GONE = "device-gone"
    BOOKS_CHANGED = "books-changed"
    NOTHING_KEPT = "nothing-kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoRefused:
    """The change is not undone; `reason` has the cause and what an admin can do."""

    why: UndoRefusal
    reason: str


class UndoRefusedError(Exception):
    """Leaves the planning of a reversal, with its answer."""

    def __init__(self, why: UndoRefusal, reason: str) -> None:
        super().__init__(reason)
        self.refused = UndoRefused(why=why, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversal:
    """What taking a change back writes.

    `state` None: as it is; `texts`: slots of it that are written as they once were; `broken`: the
    digest of the broken file that comes back. `records`: each file's text (None: it goes), and the
    digest that it has now. `taken`, `given`: the bookings that this removes and adds. `hold`: what
    must not be done again. `restored`: the devices that slots meant before.
    """

    undoes: tuple[Entry, ...]
    before: BooksState
    after: BooksState
    state: AllocatorState | None = None
    onto: Digest = Digest("")
    texts: Mapping[SlotId, str] = field(default_factory=dict)
    broken: str = ""
    records: Mapping[ContainerName, tuple[str | None, Digest | None]] = field(default_factory=dict)
    taken: frozenset[Booking] = frozenset()
    given: frozenset[Booking] = frozenset()
    containers: Mapping[ContainerName, ContainerFingerprint] = field(default_factory=dict)
    hold: Undone | None = None
    restored: Mapping[SlotId, DeviceUuid | None] = field(default_factory=dict)


def choose_change(
    entry: str, history: Sequence[HistoryEntry]
) -> tuple[HistoryEntry, ...] | UndoRefused:
    """The deeds that are taken back with `entry`: all that was made as one with it.

    Asked of the history alone, so it needs no source.
    """
    selected = next((item for item in history if item.entry.id == entry), None)
    if selected is None:
        return UndoRefused(
            why=UndoRefusal.NO_SUCH_ENTRY,
            reason=f"the history has no entry {entry}; ds01ctl history lists what it has",
        )
    # An open entry may be one that another process is writing at this moment.
    if not selected.done:
        state = (
            f"it failed ({selected.failure})" if selected.closed is Phase.FAILED else "it is open"
        )
        return UndoRefused(why=UndoRefusal.NOT_DONE, reason=f"{entry} was not done: {state}")
    undone_by = find_undone(history).get(entry)
    if undone_by is not None:
        return UndoRefused(
            why=UndoRefusal.ALREADY_UNDONE,
            reason=f"{entry} is already undone by {undone_by};"
            f" to do it again: ds01ctl undo {undone_by}",
        )
    # Decision 33: half a renumbering, or a booking without its metadata, is no state that ever was.
    change_id = change_of(selected.entry)
    change = tuple(item for item in history if change_of(item.entry) == change_id and item.done)
    # The texts of this change are those before the newer ones; writing them back would silently
    # revert those too.
    newer_changes = list(find_newer(change, history))
    if newer_changes:
        names = frozenset().union(*(item.entry.names for item in change))
        listed = ", ".join(f"{item.entry.id} ({item.entry.kind})" for item in newer_changes)
        names_text = ", ".join(sorted(names & newer_changes[-1].entry.names))
        return UndoRefused(
            why=UndoRefusal.NEWER_CHANGE,
            reason=f"newer changes of {names_text} stand: {listed}; undo the newest first",
        )
    return change


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoContext:
    """What is known when a change is to be taken back.

    `texts`: the metadata of its containers as it is written; `slots`: the slots that it is about,
    too. `parse_slot` reads a slot's text.
    """

    snapshot: Snapshot
    checkpoint: Checkpoint
    texts: Mapping[ContainerName, str | None]
    slots: Mapping[SlotId, str]
    parse_slot: SlotParser
