"""From a request for GPUs to the devices it means. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.decide.slots import Position, positions
from ds01d.model.containers import Ask, DeviceRef, RefKind, Request
from ds01d.model.devices import Inventory
from ds01d.model.facts import DeviceUuid
from ds01d.model.records import AllocatorState
from ds01d.model.snapshot import Snapshot


def resolve(request: Request, seen: Snapshot) -> tuple[frozenset[DeviceUuid] | None, bool]:
    """The devices a request means by the inventory of now, and whether it named all by UUID.

    None where a reference fits no device of the inventory, or there is no inventory. A UUID needs
    no inventory: it is the device, dead or alive.
    """
    by_uuid = request.ask is Ask.NAMED and all(ref.kind is RefKind.UUID for ref in request.devices)
    if by_uuid:
        return frozenset(DeviceUuid(ref.text) for ref in request.devices), True
    at = _places(seen)
    if at is None:
        return None, False
    if request.ask is Ask.ALL:
        whole = not (isinstance(seen.gpu, Inventory) and seen.gpu.incomplete)
        return (frozenset(at.values()) if whole else None), False
    if request.ask is Ask.COUNT:
        first = [at.get((index, None)) for index in range(request.count)]
        return (None if None in first else frozenset(u for u in first if u is not None)), False
    found = [_device(ref, at, seen) for ref in request.devices]
    return (None if None in found else frozenset(u for u in found if u is not None)), False


def _places(seen: Snapshot) -> Mapping[Position, DeviceUuid] | None:
    if isinstance(seen.gpu, Inventory):
        return positions(seen.gpu)
    if seen.gpu is None and isinstance(seen.state, AllocatorState):
        return {
            (slot.gpu_index, slot.mig_index): slot.uuid or DeviceUuid(f"slot:{slot.id}")
            for slot in seen.state.slots.values()
        }
    return None


def _device(ref: DeviceRef, at: Mapping[Position, DeviceUuid], seen: Snapshot) -> DeviceUuid | None:
    match ref.kind:
        case RefKind.UUID:
            return DeviceUuid(ref.text)
        case RefKind.INDEX:
            return at.get((int(ref.text), None)) if ref.text.isdecimal() else None
        case RefKind.MIG_INDEX:
            gpu, _, mig = ref.text.partition(":")
            known = gpu.isdecimal() and mig.isdecimal()
            return at.get((int(gpu), int(mig))) if known else None
        case RefKind.MINOR:
            gpus = seen.gpu.gpus if isinstance(seen.gpu, Inventory) else ()
            return next((g.uuid for g in gpus if str(g.minor) == ref.text), None)
        case RefKind.LEGACY_MIG:
            migs = seen.gpu.migs if isinstance(seen.gpu, Inventory) else ()
            gpu, gi, ci = (*ref.text.removeprefix("MIG-").split("/"), "", "")[:3]
            return next(
                (m.uuid for m in migs if (m.gpu, str(m.gi), str(m.ci)) == (gpu, gi, ci)), None
            )
