"""In which order the slots that suit a request are given. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.decide.inventory_places import Position
from ds01d.decide.slot_offers import Pool, PoolIndex, find_reservations
from ds01d.model.allocation import AllocationRequest
from ds01d.model.books import BadRecord, Record, Slot, SlotType
from ds01d.model.primitives import ContainerName


def rank_slot(
    slot: Slot,
    request: AllocationRequest,
    pool: Pool,
    index: PoolIndex,
    higher: frozenset[ContainerName],
) -> tuple[bool, bool, bool, int, int, float, Position]:
    """Its own already, reserved for the user, fewest neighbours above, fewest, least memory.

    Where quotas are in GPU-equivalents, whole GPUs come first. `higher`: whom `find_higher` found.
    """
    neighbours = index.find_holders(slot)
    is_reserved = request.user in find_reservations(slot, pool.limits, pool.now)
    place = (slot.gpu_index, -1 if slot.mig_index is None else slot.mig_index)
    # A device that it uses without a booking is best booked for it: it is there already.
    is_in_use = request.container in pool.foreign_users.get(slot.id, ())
    return (
        not is_in_use,
        not is_reserved,
        request.quota is not None and slot.type is SlotType.MIG,
        # Beside somebody of higher priority only where there is no other slot.
        len(higher.intersection(neighbours)),
        len(neighbours),
        index.measure_memory(slot),
        place,
    )


def find_higher(
    records: Mapping[ContainerName, Record | BadRecord], priority: int
) -> frozenset[ContainerName]:
    """The containers of a higher priority; one that is not known is 0."""
    return frozenset(
        [
            name
            for name, record in records.items()
            if isinstance(record, Record) and (record.priority or 0) > priority
        ]
    )
