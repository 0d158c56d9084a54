"""Sides of a change in the history: joined, restricted, described. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ds01d.decide.inventory_places import device_positions
from ds01d.model.books import AllocatorState, Booking, Slot
from ds01d.model.devices import Inventory
from ds01d.model.history import BooksState, Entry, HistoryEntry, SlotRecord, record_slot
from ds01d.model.primitives import ContainerName, SlotId


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What was made as one, seen from its undo: what it gave is `taken`, what it took `given`."""

    entries: tuple[Entry, ...]
    names: frozenset[ContainerName]
    before: BooksState
    after: BooksState
    taken: frozenset[Booking]
    given: frozenset[Booking]


def gather_change(history: Sequence[HistoryEntry]) -> Change:
    entries = tuple(item.entry for item in history)
    return Change(
        entries=entries,
        names=frozenset().union(*(entry.names for entry in entries)),
        before=_join_states([entry.before for entry in entries]),
        after=_join_states([entry.after for entry in entries]),
        taken=frozenset(pair for entry in entries for pair in entry.given),
        given=frozenset(pair for entry in entries for pair in entry.taken),
    )


def _join_states(sides: Sequence[BooksState | None]) -> BooksState:
    """Several sides of one write as one."""
    present = [side for side in sides if side is not None]
    slots: dict[str, SlotRecord | None] = {}
    for side in present:
        for name, record in side.slots.items():
            joined = slots.get(name)
            if joined is None or not joined.text:  # the whole text is the fullest record
                slots[name] = record
    return BooksState(
        slots=slots,
        metadata={name: text for side in present for name, text in side.metadata.items()},
        broken=next((side.broken for side in present if side.broken), ""),
        mig_enabled=next((s.mig_enabled for s in present if s.mig_enabled is not None), None),
    )


def restrict_state(
    state: AllocatorState, changed: Iterable[SlotId], like: BooksState, texts: Mapping[SlotId, str]
) -> BooksState:
    """The slots as `state` has them, with the devices of the side that they come from."""
    slots: dict[str, SlotRecord | None] = {}
    for name in changed:
        record = like.slots.get(name)
        device = record.device if record is not None else None
        # The device comes from the side: a slot without a UUID meant that one at the time.
        slots[name] = record_slot(state.slots.get(name), texts.get(name, ""), device)
    # Decision 11: it is part of a change of the slot table, and of no other.
    mig = state.mig_enabled if like.mig_enabled is not None else None
    return BooksState(slots=slots, mig_enabled=mig)


def describe_slot(slot: Slot | None) -> str:
    if slot is None:
        return "it is not there"
    return f"it has {', '.join(slot.containers) or 'no container'}, {slot.uuid or 'no UUID'}"


def has_device(slot: Slot, gpu: Inventory) -> bool:
    at = device_positions(gpu)
    if slot.uuid is not None:
        return slot.uuid in at.values()
    return (slot.gpu_index, slot.mig_index) in at
