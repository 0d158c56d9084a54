"""The slot table that follows from the devices there are. Slots follow UUIDs, not indices.

Pure. Knows nothing of containers but that they are listed in slots and go where their slot goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.facts import (
    AllocatorState,
    ContainerName,
    DeviceUuid,
    Inventory,
    Now,
    Slot,
    SlotId,
    SlotType,
    Source,
    Unknown,
)

Position = tuple[int, "int | None"]
WholeGpus = Literal["without-mig", "always"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Slots as they should be (or, unchanged, as they are), with the device behind each.

    `moved`: old slot id → new one, where it changed. `dead`: slots whose device is gone, and how:
    their holders are flagged. `drifts`: what differs from the file.
    """

    slots: Mapping[SlotId, Slot]
    mig_enabled: bool
    device: Mapping[SlotId, DeviceUuid]
    slot_of: Mapping[DeviceUuid, SlotId]
    moved: Mapping[SlotId, SlotId] = field(default_factory=dict)
    dead: Mapping[SlotId, str] = field(default_factory=dict)
    drifts: tuple[Drift, ...] = ()


def plausible(
    gpu: Inventory | Unknown | None, *, remembered: int, now: Now, boot_grace_s: float
) -> Inventory | Unknown | None:
    """The sample itself, or an Unknown where it says what cannot be right."""
    if not isinstance(gpu, Inventory):
        return gpu
    uuids = [g.uuid for g in gpu.gpus] + [m.uuid for m in gpu.migs]
    twice = sorted({u for u in uuids if uuids.count(u) > 1})
    if not gpu.gpus:
        reason = "NVML lists no GPU at all"
    elif twice:
        reason = f"NVML lists {', '.join(twice)} more than once"
    elif now.boot < boot_grace_s and len(uuids) < remembered:
        reason = (
            f"{len(uuids)} devices {now.boot:.0f} s after boot, {remembered} before it:"
            " a MIG layout may still be restored"
        )
    else:
        return gpu
    return Unknown(source=Source.NVML, reason=reason)


def positions(gpu: Inventory) -> dict[Position, DeviceUuid]:
    """Where each device lies: (GPU index, MIG index or None) → UUID."""
    whole: dict[Position, DeviceUuid] = {(g.index, None): g.uuid for g in gpu.gpus}
    return whole | {(m.gpu_index, m.index): m.uuid for m in gpu.migs}


def device_behind(
    slot: Slot, at: Mapping[Position, DeviceUuid], remembered: Mapping[SlotId, DeviceUuid]
) -> DeviceUuid | None:
    """The device that a slot means: by its UUID, else as remembered, else by its place."""
    return slot.uuid or remembered.get(slot.id) or at.get((slot.gpu_index, slot.mig_index))


def as_it_is(
    state: AllocatorState, gpu: Inventory | Unknown | None, remembered: Mapping[SlotId, DeviceUuid]
) -> Table:
    """The table of the file: nothing is known of the devices, or nothing may move yet."""
    at = positions(gpu) if isinstance(gpu, Inventory) else {}
    device: dict[SlotId, DeviceUuid] = {}
    for slot in state.slots.values():
        behind = device_behind(slot, at, remembered)
        if behind is None and gpu is None:
            behind = DeviceUuid(f"slot:{slot.id}")
        if behind is not None:
            device[slot.id] = behind
    return Table(
        slots=state.slots,
        mig_enabled=state.mig_enabled,
        device=device,
        slot_of={uuid: slot for slot, uuid in reversed(device.items())},
    )


def follow_devices(
    state: AllocatorState,
    gpu: Inventory,
    *,
    remembered: Mapping[SlotId, DeviceUuid],
    whole_gpus: WholeGpus,
) -> Table:
    """The table that follows from the devices: holders go with the UUID, new devices get a slot,
    empty slots of vanished devices go, and those with holders stay, flagged.
    """
    at = positions(gpu)
    place = {uuid: position for position, uuid in at.items()}
    migs = {mig.uuid: mig for mig in gpu.migs}
    divided = {mig.gpu for mig in gpu.migs} | {g.uuid for g in gpu.gpus if g.mig}
    usable = [
        g.uuid for g in gpu.gpus if g.uuid not in divided and (whole_gpus == "always" or not migs)
    ] + [mig.uuid for mig in gpu.migs]

    target: dict[SlotId, Slot] = {}
    device: dict[SlotId, DeviceUuid] = {}
    moved: dict[SlotId, SlotId] = {}
    dead: dict[SlotId, str] = {}
    drifts: list[Drift] = []
    stranded: list[tuple[Slot, str]] = []

    for slot in state.slots.values():
        uuid = device_behind(slot, at, remembered)
        if uuid is None or uuid not in place or uuid in device.values():
            stranded.append((slot, f"{uuid or slot.id} is gone"))
            continue
        if uuid not in usable and not slot.containers:
            drifts.append(_gone(slot, f"{uuid} is not handed out as a whole beside MIG devices"))
            continue
        home = slot.id if place[uuid] == (slot.gpu_index, slot.mig_index) else _id_at(place[uuid])
        fresh = _placed(slot, home, place[uuid], uuid, migs[uuid].profile if uuid in migs else None)
        target[home], device[home] = fresh, uuid
        if uuid in divided:
            dead[home] = f"{uuid} is divided into MIG devices now"
        if home != slot.id:
            moved[slot.id] = home
            drifts.append(_stale(slot, home, f"{uuid} is {home} now, the file has it as {slot.id}"))
        elif _says(fresh) != _says(slot):
            drifts.append(
                _stale(slot, home, f"the file has {_says(slot)}, the device is {_says(fresh)}")
            )

    for slot, gone in stranded:
        here = at.get((slot.gpu_index, slot.mig_index))
        if slot.id in target:
            if slot.containers:
                target[slot.id] = _joined(target[slot.id], slot)
                dead[slot.id] = f"{gone}; its holders share the slot of {here}"
                drifts.append(_stale(slot, slot.id, dead[slot.id]))
        elif here is not None and here not in device.values() and here in usable:
            profile = migs[here].profile if here in migs else None
            place_here = (slot.gpu_index, slot.mig_index)
            target[slot.id] = _placed(slot, slot.id, place_here, here, profile)
            device[slot.id] = here
            if slot.containers:
                dead[slot.id] = f"{gone}, {here} is in its place"
            drifts.append(_stale(slot, slot.id, f"{gone}, {here} is in its place"))
        elif slot.containers:
            target[slot.id] = slot
            dead[slot.id] = gone
        else:
            drifts.append(_gone(slot, gone))

    for uuid in usable:
        if uuid not in device.values():
            home = _id_at(place[uuid])
            if home in target:
                continue
            target[home] = _new(
                home, place[uuid], uuid, migs[uuid].profile if uuid in migs else None
            )
            device[home] = uuid
            drifts.append(_stale(None, home, f"{uuid} has no slot"))

    changed = bool(drifts)
    return Table(
        slots=dict(sorted(target.items(), key=lambda item: _order(item[1]))) if changed else target,
        mig_enabled=bool(migs) if changed else state.mig_enabled,
        device=device,
        slot_of={uuid: slot for slot, uuid in device.items()},
        moved=moved,
        dead=dead,
        drifts=tuple(drifts),
    )


def _id_at(position: Position) -> SlotId:
    gpu, mig = position
    return SlotId(str(gpu) if mig is None else f"{gpu}.{mig}")


def _order(slot: Slot) -> Position:
    return (slot.gpu_index, -1 if slot.mig_index is None else slot.mig_index)


def _placed(
    slot: Slot, home: SlotId, position: Position, uuid: DeviceUuid, profile: str | None
) -> Slot:
    """The slot at its place. The oldest format has no UUIDs; it gets none (a whole GPU neither)."""
    gpu_index, mig_index = position
    return replace(
        slot,
        id=home,
        gpu_index=gpu_index,
        mig_index=mig_index,
        uuid=None if slot.uuid is None else uuid,
        profile=slot.profile if slot.profile is None else profile or slot.profile,
    )


def _new(home: SlotId, position: Position, uuid: DeviceUuid, profile: str | None) -> Slot:
    gpu_index, mig_index = position
    if mig_index is None:
        return Slot(id=home, type=SlotType.PHYSICAL, gpu_index=gpu_index)
    return Slot(
        id=home,
        type=SlotType.MIG,
        gpu_index=gpu_index,
        mig_index=mig_index,
        uuid=uuid,
        profile=profile or "",
    )


def _joined(slot: Slot, other: Slot) -> Slot:
    more: tuple[ContainerName, ...] = tuple(c for c in other.containers if c not in slot.containers)
    return replace(slot, containers=slot.containers + more)


def _says(slot: Slot) -> tuple[DeviceUuid | None, str | None]:
    return (slot.uuid, slot.profile)


def _stale(slot: Slot | None, home: SlotId, reason: str) -> Drift:
    return Drift(
        kind=Kind.STALE_SLOT,
        action=Action.UPDATE_SLOT,
        container=None,
        slot=home if slot is None else slot.id,
        reason=reason,
        evidence=(f"nvml: {reason}",),
        fingerprint=reason,
    )


def _gone(slot: Slot, reason: str) -> Drift:
    return Drift(
        kind=Kind.VANISHED_SLOT,
        action=Action.REMOVE_SLOT,
        container=None,
        slot=slot.id,
        reason=f"empty, and {reason}",
        evidence=(f"nvml: {reason}",),
        fingerprint=reason,
    )


def inventory_fingerprint(gpu: Inventory) -> str:
    """Tells one set of devices and places from another."""
    at = positions(gpu)
    return ";".join(
        f"{g}{'' if m is None else f'.{m}'}={uuid}"
        for (g, m), uuid in sorted(
            at.items(), key=lambda item: (item[0][0], item[0][1] is not None, item[0][1] or 0)
        )
    )
