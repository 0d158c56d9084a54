"""What somebody else added to a state, and taking it over. Pure: it reads and writes no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ds01d.model.books import AllocatorState, Slot
from ds01d.model.primitives import ContainerName, SlotId

Booking = tuple[ContainerName, SlotId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a replaced file holds now, other than what its successor was based on.

    `base` is None where that could not be understood: a broken file that was rebuilt.
    """

    link: str
    base: AllocatorState | None
    now: AllocatorState

    def added_to(self, current: AllocatorState) -> frozenset[Booking]:
        """Bookings that somebody added and `current` lacks; of slots that still exist."""
        return frozenset(
            (name, target)
            for slot, added in self._added()
            if (target := _same_slot(slot, current)) is not None
            for name in added
            if name not in current.slots[target].containers
        )

    def merged_into(self, current: AllocatorState) -> AllocatorState:
        """`current` with those bookings; their users are counted as the other writer did."""
        slots = dict(current.slots)
        for slot, added in self._added():
            target = _same_slot(slot, current)
            ours = slots[target] if target is not None else slot
            lacking = [name for name in added if name not in ours.containers]
            if target is not None and lacking:
                slots[target] = replace(
                    ours,
                    containers=(*ours.containers, *lacking),
                    users=_counted(ours.users, self._before(slot).users, slot.users, len(lacking)),
                )
        return replace(current, slots=slots)

    def without_released(
        self, before: AllocatorState, after: AllocatorState
    ) -> AllocatorState | None:
        """The base from which on bookings that were there `before` and not `after` are no news.

        None if there are none of that kind.
        """
        known = dict(self.base.slots) if self.base is not None else {}
        known |= {slot.id: self._before(slot) for slot in self.now.slots.values()}
        released = False
        for slot, added in self._added():
            gone = [name for name in added if _has(before, slot, name)]
            gone = [name for name in gone if not _has(after, slot, name)]
            containers = (*known[slot.id].containers, *gone)
            known[slot.id] = replace(known[slot.id], containers=containers)
            released = released or bool(gone)
        return replace(self.now, slots=known) if released else None

    def _added(self) -> Iterator[tuple[Slot, list[ContainerName]]]:
        for slot in self.now.slots.values():
            known = self._before(slot).containers
            if added := [name for name in dict.fromkeys(slot.containers) if name not in known]:
                yield slot, added

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


def _has(state: AllocatorState, slot: Slot, name: ContainerName) -> bool:
    target = _same_slot(slot, state)
    return target is not None and name in state.slots[target].containers


def _counted(
    ours: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int], added: int
) -> dict[str, int]:
    """Count the users of `added` bookings, where theirs tell whose they are; else leave it.

    Nothing hangs on it: the next pass counts anew, from the metadata.
    """
    grown = {user: count - before.get(user, 0) for user, count in after.items()}
    grown = {user: more for user, more in grown.items() if more > 0}
    if len(grown) == 1:
        grown = dict.fromkeys(grown, added)
    if sum(grown.values()) != added:
        return dict(ours)
    return {**ours, **{user: ours.get(user, 0) + more for user, more in grown.items()}}
