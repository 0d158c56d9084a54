"""What `ds01-allocator status` prints, and the document that `get_status()` of the shim gives.

Scripts parse the lines: not a byte of them changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.model.books import AllocatorState, Slot, SlotType
from ds01d.model.devices import Gpu
from ds01d.model.primitives import Wall
from ds01d.text import make_printable

Value = bool | int | float | str | list[str] | dict[str, int] | None
MIB = 1 << 20


def status_document(
    state: AllocatorState, gpus: Mapping[int, Gpu], now: Wall
) -> dict[str, bool | int | list[dict[str, Value]]]:
    """The slots with their holders; figures that are not known are 0, as they always were."""
    slots = [_slot_document(slot, gpus.get(slot.gpu_index), now) for slot in state.slots.values()]
    return {
        "total_gpus": len(slots),
        "total_allocated_containers": sum(len(s.containers) for s in state.slots.values()),
        "mig_enabled": state.mig_enabled,
        "gpus": slots,
    }


def _slot_document(slot: Slot, gpu: Gpu | None, now: Wall) -> dict[str, Value]:
    whole = slot.mig_index is None
    # The utilisation of a whole GPU is not that of its MIG devices.
    device = gpu if whole else None
    used = (device.memory_used or 0) // MIB if device is not None else 0
    total = (device.memory_total or 0) // MIB if device is not None else 0
    reserved = slot.reserved_for and (slot.reserved_end is None or now <= slot.reserved_end)
    return {
        "id": slot.id,
        "type": slot.type.value,
        "physical_gpu": slot.id if whole else str(slot.gpu_index),
        "profile": slot.profile or "",
        "uuid": slot.uuid or "",
        "device_id": "" if whole else str(slot.mig_index),
        "container_count": len(slot.containers),
        "containers": list(slot.containers),
        "users": dict(slot.users),
        "utilization": (device.utilization or 0) if device is not None else 0,
        "memory_used": used,
        "memory_total": total,
        "memory_percent": 100 * used / total if total else 0,
        "reserved": bool(reserved),
        "reserved_for": slot.reserved_for if reserved else None,
        "reserved_until": slot.reserved_until if reserved else None,
    }


def status_lines(state: AllocatorState, gpus: Mapping[int, Gpu], now: Wall) -> Iterator[str]:
    """`status`."""
    mode, unit = (
        ("MIG ENABLED", "GPU instances") if state.mig_enabled else ("Standard GPUs", "GPUs")
    )
    total = sum(len(slot.containers) for slot in state.slots.values())
    yield ""
    yield f"GPU Status ({mode}): {total} containers across {len(state.slots)} {unit}"
    yield ""
    for slot in state.slots.values():
        document = _slot_document(slot, gpus.get(slot.gpu_index), now)
        kind = "MIG" if slot.type is SlotType.MIG else "GPU"
        suffix = (
            f" [RESERVED for {make_printable(str(document['reserved_for']))}]"
            if document["reserved"]
            else ""
        )
        yield f"{kind} {slot.id}: {len(slot.containers)} containers{suffix}"
        memory = f"{document['memory_used']}/{document['memory_total']} MB"
        yield f"  Util: {document['utilization']}% | Mem: {memory}"
        yield from (f"    - {make_printable(name)}" for name in slot.containers)
        yield ""
