"""The slots with Docker as the books: NVML's devices, and the reservations among them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ds01d.decide.slot_table import WholeGpus, follow_devices, slot_id_at
from ds01d.model.books import AllocatorState, Slot, SlotType
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.devices import Inventory
from ds01d.model.primitives import DeviceUuid, SlotId, Unknown


def list_slots(
    state: AllocatorState,
    gpu: Inventory | Unknown | None,
    checkpoint: Checkpoint,
    whole_gpus: WholeGpus,
    occupied: frozenset[DeviceUuid] = frozenset(),
) -> Mapping[SlotId, Slot]:
    """The slots of the devices there are, with the reservations; without NVML as remembered.

    `occupied`: the devices that containers have. A GPU among them keeps its slot where MIG
    mode was switched on and there is no MIG device yet, as one with a reservation does.
    """
    remembered = checkpoint.slots
    base = {
        slot.id: slot
        for slot in state.slots.values()
        if slot.containers or remembered.get(slot.id) == slot.uuid
    }
    base |= {id_: _make_slot(id_, uuid) for id_, uuid in remembered.items() if id_ not in base}
    slots = base
    device_of: Mapping[SlotId, DeviceUuid] = {}
    profiles: Mapping[DeviceUuid, str] = {}
    if isinstance(gpu, Inventory):
        listed = {g.uuid for g in gpu.gpus} | {m.uuid for m in gpu.migs}
        # A GPU that fails does not say which devices it has: their slots stay, and never become
        # another device's that has their place now.
        silent = [s for s in base.values() if gpu.incomplete and s.uuid not in listed]
        visible = {id_: slot for id_, slot in base.items() if slot not in silent}
        table = follow_devices(
            replace(state, slots=visible), gpu, remembered=remembered, whole_gpus=whole_gpus
        )
        slots, device_of = dict(table.slots), table.device_of
        for slot in silent:
            places = (slot.id, *(slot_id_at((i, slot.mig_index)) for i in gpu.incomplete))
            free = next((id_ for id_ in places if id_ not in slots), None)
            if free is not None:
                index = _make_slot(free, DeviceUuid("")).gpu_index
                slots[free] = replace(slot, id=free, gpu_index=index)
        # Decision 228: offered to nobody, but its holder must not look like one without a GPU.
        with_parts = {mig.gpu for mig in gpu.migs}
        for whole in gpu.gpus:
            if whole.mig and whole.uuid in occupied and whole.uuid not in with_parts:
                id_ = slot_id_at((whole.index, None))
                slots.setdefault(id_, _make_slot(id_, whole.uuid))
        profiles = {mig.uuid: mig.profile for mig in gpu.migs}
    complete = {}
    for slot in sorted(slots.values(), key=_sort_key):
        # Also of a whole GPU: a reservation follows its device when indices are renumbered.
        uuid = device_of.get(slot.id) or slot.uuid
        if uuid is None:
            continue
        profile = profiles.get(uuid, slot.profile)
        is_complete = (slot.uuid, slot.profile) == (uuid, profile)
        complete[slot.id] = slot if is_complete else replace(slot, uuid=uuid, profile=profile)
    return complete


def _make_slot(slot: SlotId, uuid: DeviceUuid) -> Slot:
    index, *mig = map(int, re.findall(r"\d+", slot))
    kind = SlotType.MIG if mig else SlotType.PHYSICAL
    return Slot(id=slot, type=kind, gpu_index=index, mig_index=mig[0] if mig else None, uuid=uuid)


def _sort_key(slot: Slot) -> tuple[int, int]:
    return (slot.gpu_index, -1 if slot.mig_index is None else slot.mig_index)
