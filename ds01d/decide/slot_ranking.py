"""In which order the slots that suit a request are given. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ds01d.decide.inventory_places import Position
from ds01d.decide.slot_offers import Pool, PoolIndex, find_reservations
from ds01d.model.allocation import AllocationRequest
from ds01d.model.books import Record, Slot, SlotType
from ds01d.model.primitives import ContainerName


def rank_slot(
    slot: Slot, request: AllocationRequest, pool: Pool, index: PoolIndex
) -> tuple[bool, bool, bool, int, int, float, Position]:
    """Its own already, reserved for the user, fewest neighbours above, fewest, least memory.

    Where quotas are in GPU-equivalents, whole GPUs come first.
    """
    neighbours = index.find_holders(slot)
    # Beside somebody of higher priority only where there is no other slot.
    higher = _count_higher(neighbours, request.priority, pool)
    is_reserved = request.user in find_reservations(slot, pool.limits, pool.now)
    place = (slot.gpu_index, -1 if slot.mig_index is None else slot.mig_index)
    # A device that it uses without a booking is best booked for it: it is there already.
    is_in_use = request.container in pool.foreign_users.get(slot.id, ())
    return (
        not is_in_use,
        not is_reserved,
        request.quota is not None and slot.type is SlotType.MIG,
        higher,
        len(neighbours),
        index.measure_memory(slot),
        place,
    )


def _count_higher(names: Iterable[ContainerName], priority: int, pool: Pool) -> int:
    """How many of them have a higher priority; one that is not known is 0."""
    records = pool.records
    return sum(
        [
            ((record.priority or 0) if isinstance(record := records.get(name), Record) else 0)
            > priority
            for name in names
        ]
    )
