"""What somebody else added to a state, and taking it over. Pure: it reads and writes no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ds01d.model.books import AllocatorState, Booking, Slot
from ds01d.model.primitives import ContainerName, SlotId


@dataclass(frozen=True, slots=True, kw_only=True)
class LateChange:
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
            for slot, added in self._list_added()
            if (target := _find_same_slot(slot, current)) is not None
            for name in added
            if name not in current.slots[target].containers
        )

    def merged_into(self, current: AllocatorState) -> AllocatorState:
        """`current` with those bookings; their users are counted as the other writer did."""
        slots = dict(current.slots)
        for slot, added in self._list_added():
            target = _find_same_slot(slot, current)
            current_slot = slots[target] if target is not None else slot
            lacking = [name for name in added if name not in current_slot.containers]
            # A slot that is gone takes no bookings: where its holder is now the next pass decides.
            if target is not None and lacking:
                slots[target] = replace(
                    current_slot,
                    containers=(*current_slot.containers, *lacking),
                    users=_count_users(
                        current_slot.users,
                        self._find_base_slot(slot).users,
                        slot.users,
                        len(lacking),
                    ),
                )
        return replace(current, slots=slots)

    def without_released(
        self, before: AllocatorState, after: AllocatorState
    ) -> AllocatorState | None:
        """The base from which on bookings that were there `before` and not `after` are no news.

        None if there are none of that kind.
        """
        slots = dict(self.base.slots) if self.base is not None else {}
        # The slots of now, with the bookings of the base: what is compared has to have both.
        slots |= {slot.id: self._find_base_slot(slot) for slot in self.now.slots.values()}
        released = False
        for slot, added in self._list_added():
            gone = [name for name in added if _has_booking(before, slot, name)]
            gone = [name for name in gone if not _has_booking(after, slot, name)]
            containers = (*slots[slot.id].containers, *gone)
            slots[slot.id] = replace(slots[slot.id], containers=containers)
            released = released or bool(gone)
        return replace(self.now, slots=slots) if released else None

    def _list_added(self) -> Iterator[tuple[Slot, list[ContainerName]]]:
        for slot in self.now.slots.values():
            booked = self._find_base_slot(slot).containers
            if added := [name for name in dict.fromkeys(slot.containers) if name not in booked]:
                yield slot, added

    def _find_base_slot(self, slot: Slot) -> Slot:
        base_slot = self.base.slots.get(slot.id) if self.base is not None else None
        return base_slot or replace(slot, containers=(), users={})


def _find_same_slot(slot: Slot, current: AllocatorState) -> SlotId | None:
    """Find a slot of theirs in `current`: by its UUID, which may have another id by now."""
    for other in current.slots.values():
        if slot.uuid is not None and other.uuid == slot.uuid:
            return other.id
    current_slot = current.slots.get(slot.id)
    # Two different UUIDs under one ID are two devices: the table has changed in between.
    if current_slot is None or (slot.uuid is not None and current_slot.uuid is not None):
        return None
    return current_slot.id


def _has_booking(state: AllocatorState, slot: Slot, name: ContainerName) -> bool:
    target = _find_same_slot(slot, state)
    return target is not None and name in state.slots[target].containers


def _count_users(
    ours: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int], added: int
) -> dict[str, int]:
    """Count the users of `added` bookings, if the counters show whose they are; else leave them."""
    # It need not be exact: the next pass recounts from the metadata.
    grown = {user: count - before.get(user, 0) for user, count in after.items()}
    grown = {user: more for user, more in grown.items() if more > 0}
    if len(grown) == 1:
        grown = dict.fromkeys(grown, added)
    if sum(grown.values()) != added:
        return dict(ours)
    return {**ours, **{user: ours.get(user, 0) + more for user, more in grown.items()}}
