"""The slot table that follows from the devices there are. Slots follow UUIDs, not indices.

Pure. Knows nothing of containers but that they are listed in slots and go where their slot goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ds01d.decide.inventory_places import Position, device_positions
from ds01d.model.books import AllocatorState, Slot, SlotType
from ds01d.model.devices import Inventory
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.primitives import DeviceUuid, SlotId, Unknown

WholeGpus = Literal["without-mig", "always"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTable:
    """Slots as they should be (or, unchanged, as they are), with the device behind each.

    `moved`: old slot id → new one, where it changed. `dead`: slots whose device is gone, and how:
    their holders are flagged. `drifts`: what differs from the file.
    """

    slots: Mapping[SlotId, Slot]
    mig_enabled: bool
    device_of: Mapping[SlotId, DeviceUuid]
    slot_of: Mapping[DeviceUuid, SlotId]
    moved: Mapping[SlotId, SlotId] = field(default_factory=dict)
    dead: Mapping[SlotId, str] = field(default_factory=dict)
    drifts: tuple[Drift, ...] = ()


def find_device(
    slot: Slot, at: Mapping[Position, DeviceUuid], remembered: Mapping[SlotId, DeviceUuid]
) -> DeviceUuid | None:
    """The device that a slot means: by its UUID, else as remembered, else by its place."""
    return slot.uuid or remembered.get(slot.id) or at.get((slot.gpu_index, slot.mig_index))


def keep_table(
    state: AllocatorState, gpu: Inventory | Unknown | None, remembered: Mapping[SlotId, DeviceUuid]
) -> SlotTable:
    """The table of the file: nothing is known of the devices, or nothing may move yet."""
    at = device_positions(gpu) if isinstance(gpu, Inventory) else {}
    device_of: dict[SlotId, DeviceUuid] = {}
    for slot in state.slots.values():
        uuid = find_device(slot, at, remembered)
        if uuid is None and gpu is None:
            uuid = DeviceUuid(f"slot:{slot.id}")
        if uuid is not None:
            device_of[slot.id] = uuid
    return SlotTable(
        slots=state.slots,
        mig_enabled=state.mig_enabled,
        device_of=device_of,
        slot_of={uuid: slot for slot, uuid in reversed(device_of.items())},
    )


def follow_devices(
    state: AllocatorState,
    gpu: Inventory,
    *,
    remembered: Mapping[SlotId, DeviceUuid],
    whole_gpus: WholeGpus,
) -> SlotTable:
    """The table that follows from the devices.

    Holders go with the UUID, new devices get a slot, empty slots of vanished devices go, and those
    with holders stay, flagged.
    """
    builder = _SlotTableBuilder(gpu, whole_gpus)
    # In two steps: a slot whose device is gone may only take a place that no moved slot claims.
    stranded = [
        (slot, uuid)
        for slot in state.slots.values()
        if not builder.follow_device(slot, uuid := find_device(slot, builder.at, remembered))
    ]
    for slot, uuid in stranded:
        builder.place_stranded(slot, f"{uuid or slot.id} is gone")
    builder.add_new()
    return builder.build_table(state)


class _SlotTableBuilder:
    """A slot table in the making."""

    def __init__(self, gpu: Inventory, whole_gpus: WholeGpus) -> None:
        self.at = device_positions(gpu)
        self._place = {uuid: position for position, uuid in self.at.items()}
        self._profiles = {mig.uuid: mig.profile for mig in gpu.migs}
        self._divided = {mig.gpu for mig in gpu.migs} | {g.uuid for g in gpu.gpus if g.mig}
        whole = whole_gpus == "always" or not gpu.migs
        usable = [g.uuid for g in gpu.gpus if whole and g.uuid not in self._divided]
        self._usable = dict.fromkeys([*usable, *(mig.uuid for mig in gpu.migs)])
        self._target: dict[SlotId, Slot] = {}
        self._slot_of: dict[DeviceUuid, SlotId] = {}
        self._moved: dict[SlotId, SlotId] = {}
        self._dead: dict[SlotId, str] = {}
        self._drifts: list[Drift] = []

    def follow_device(self, slot: Slot, uuid: DeviceUuid | None) -> bool:
        """Put a slot where its device is; False if there is no such device (any more)."""
        if uuid is None or uuid not in self._place or uuid in self._slot_of:
            return False
        # A whole GPU beside MIG devices is not handed out; a slot that is still booked stays until
        # its container is gone.
        if uuid not in self._usable and not slot.containers:
            self._drifts.append(
                _vanished_drift(slot.id, f"{uuid} is not handed out as a whole now")
            )
            return True
        place = self._place[uuid]
        slot_id = slot.id if place == (slot.gpu_index, slot.mig_index) else slot_id_at(place)
        placed = self._put_slot(slot, slot_id, uuid)
        if uuid in self._divided:
            self._dead[slot_id] = f"{uuid} is divided into MIG devices now"
        if slot_id != slot.id:
            self._moved[slot.id] = slot_id
            reason = f"{uuid} is {slot_id} now, the file has it as {slot.id}"
            self._drifts.append(_stale_drift(slot.id, reason))
        elif placed is not slot and (old := _describe_device(slot)) != (
            new := _describe_device(placed)
        ):
            self._drifts.append(_stale_drift(slot.id, f"the file has {old}, the device is {new}"))
        return True

    def place_stranded(self, slot: Slot, gone: str) -> None:
        """Find a place for a slot whose device is gone, once all others have theirs."""
        device = self.at.get((slot.gpu_index, slot.mig_index))
        if slot.id in self._target:
            # Two slots would need the same ID: the holders are joined and flagged, since dropping
            # one of them would free a device in use.
            if slot.containers:
                placed = self._target[slot.id]
                more = (name for name in slot.containers if name not in placed.containers)
                self._target[slot.id] = replace(placed, containers=(*placed.containers, *more))
                self._dead[slot.id] = f"{gone}; its holders share the slot of {device}"
                self._drifts.append(_stale_drift(slot.id, self._dead[slot.id]))
        elif device is not None and device not in self._slot_of and device in self._usable:
            self._put_slot(slot, slot.id, device)
            if slot.containers:
                self._dead[slot.id] = f"{gone}, {device} is in its place"
            self._drifts.append(_stale_drift(slot.id, f"{gone}, {device} is in its place"))
        elif slot.containers:
            self._target[slot.id] = slot
            self._dead[slot.id] = gone
        else:
            self._drifts.append(_vanished_drift(slot.id, gone))

    def add_new(self) -> None:
        """Give a slot to every device that has none."""
        for uuid in self._usable:
            place = self._place[uuid]
            slot_id = slot_id_at(place)
            if uuid not in self._slot_of and slot_id not in self._target:
                self._target[slot_id] = _make_slot(slot_id, place, uuid, self._profiles.get(uuid))
                self._slot_of[uuid] = slot_id
                self._drifts.append(_stale_drift(slot_id, f"{uuid} has no slot"))

    def build_table(self, state: AllocatorState) -> SlotTable:
        target, changed = self._target, bool(self._drifts)
        # Only a table that changed is sorted: otherwise the file would be rewritten for its order
        # alone.
        ordered = dict(sorted(target.items(), key=lambda item: _sort_key(item[1])))
        return SlotTable(
            slots=ordered if changed else target,
            # Decision 11: old files say `true` for whole GPUs, and the allocator that wrote them
            # means it.
            mig_enabled=bool(self._profiles) if changed else state.mig_enabled,
            device_of={slot: uuid for uuid, slot in self._slot_of.items()},
            slot_of=self._slot_of,
            moved=self._moved,
            dead=self._dead,
            drifts=tuple(self._drifts),
        )

    def _put_slot(self, slot: Slot, slot_id: SlotId, uuid: DeviceUuid) -> Slot:
        placed = _place_slot(slot, slot_id, self._place[uuid], uuid, self._profiles.get(uuid))
        self._target[slot_id] = placed
        self._slot_of[uuid] = slot_id
        return placed


def slot_id_at(position: Position) -> SlotId:
    """The slot id of a place."""
    gpu, mig = position
    return SlotId(str(gpu) if mig is None else f"{gpu}.{mig}")


def _sort_key(slot: Slot) -> Position:
    return (slot.gpu_index, -1 if slot.mig_index is None else slot.mig_index)


def _place_slot(
    slot: Slot, slot_id: SlotId, position: Position, uuid: DeviceUuid, profile: str | None
) -> Slot:
    """The slot at its place. The oldest format has no UUIDs; it gets none (a whole GPU neither)."""
    gpu_index, mig_index = position
    new_uuid = None if slot.uuid is None else uuid
    new_profile = slot.profile if slot.profile is None else profile or slot.profile
    current = (slot.id, slot.gpu_index, slot.mig_index, slot.uuid, slot.profile)
    if current == (slot_id, gpu_index, mig_index, new_uuid, new_profile):
        return slot
    placed = replace(slot, id=slot_id, gpu_index=gpu_index, mig_index=mig_index)
    return replace(placed, uuid=new_uuid, profile=new_profile)


def _make_slot(slot_id: SlotId, position: Position, uuid: DeviceUuid, profile: str | None) -> Slot:
    gpu_index, mig_index = position
    if mig_index is None:
        return Slot(id=slot_id, type=SlotType.PHYSICAL, gpu_index=gpu_index)
    return Slot(
        id=slot_id,
        type=SlotType.MIG,
        gpu_index=gpu_index,
        mig_index=mig_index,
        uuid=uuid,
        profile=profile or "",
    )


def _describe_device(slot: Slot) -> str:
    return " ".join(part for part in (slot.uuid, slot.profile) if part) or "no UUID"


def _stale_drift(slot: SlotId, reason: str) -> Drift:
    return _table_drift(Kind.STALE_SLOT, Action.UPDATE_SLOT, slot, reason, reason)


def _vanished_drift(slot: SlotId, reason: str) -> Drift:
    summary = f"empty, and {reason}"
    return _table_drift(Kind.VANISHED_SLOT, Action.REMOVE_SLOT, slot, summary, reason)


def _table_drift(kind: Kind, action: Action, slot: SlotId, summary: str, reason: str) -> Drift:
    return Drift(
        kind=kind,
        action=action,
        container=None,
        slot=slot,
        reason=summary,
        evidence=(f"nvml: {reason}",),
        fingerprint=reason,
    )
