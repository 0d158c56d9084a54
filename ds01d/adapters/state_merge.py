"""What somebody else added to a state, and taking it over. Pure: it reads and writes no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ds01d.model.facts import AllocatorState, ContainerName, Slot, SlotId

Booking = tuple[ContainerName, SlotId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a replaced file holds now, other than what its successor was based on.

    `base` is None where that could not be understood: a broken file that was rebuilt.
    """

    link: str
    data: bytes
    base: AllocatorState | None
    now: AllocatorState

    def added_to(self, current: AllocatorState) -> frozenset[Booking]:
        """Bookings that somebody added and `current` lacks; of slots that still exist."""
        return frozenset(
            (name, target)
            for slot in self.now.slots.values()
            if (target := _same_slot(slot, current)) is not None
            for name in slot.containers
            if name not in self._before(slot).containers
            if name not in current.slots[target].containers
        )

    def merged_into(self, current: AllocatorState) -> AllocatorState:
        """`current` with those bookings; their users are counted as the other writer did."""
        slots = dict(current.slots)
        for slot in self.now.slots.values():
            target = _same_slot(slot, current)
            added = [name for name, to in self.added_to(current) if to == target]
            if target is not None and added:
                ours = slots[target]
                slots[target] = replace(
                    ours,
                    containers=(*ours.containers, *sorted(added)),
                    users=_counted(ours.users, self._before(slot).users, slot.users),
                )
        return replace(current, slots=slots)

    def _before(self, slot: Slot) -> Slot:
        known = self.base.slots.get(slot.id) if self.base is not None else None
        return known or replace(slot, containers=(), users={})


def _same_slot(slot: Slot, current: AllocatorState) -> SlotId | None:
    """Find a slot of theirs in `current`: by its UUID, which may have another id by now."""
    for ours in current.slots.values():
        if slot.uuid is not None and ours.uuid == slot.uuid:
            return ours.id
    there = current.slots.get(slot.id)
    if there is None or (slot.uuid is not None and there.uuid is not None):
        return None
    return there.id


def _counted(
    ours: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int]
) -> dict[str, int]:
    grown = {user: count - before.get(user, 0) for user, count in after.items()}
    added = {user: ours.get(user, 0) + more for user, more in grown.items() if more > 0}
    return {**ours, **added}
