"""What `ds01-allocator` prints, line by line. Scripts parse it: not a byte of it changes.

Also the document that `GPUAllocationManager.get_status()` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ds01d.cli.words import printable
from ds01d.model.booking import (
    Allocated,
    MarkedStopped,
    NoMetadata,
    NotAllocated,
    Rejected,
    Released,
)
from ds01d.model.facts import AllocatorState, Gpu, Inventory, Slot, SlotType, Wall

Value = bool | int | float | str | list[str] | dict[str, int] | None
MIB = 1 << 20


def status_document(
    state: AllocatorState, gpu: Inventory | None, now: Wall
) -> dict[str, bool | int | list[dict[str, Value]]]:
    """The slots with their holders; figures that are not known are 0, as they always were."""
    gpus = {} if gpu is None else {one.index: one for one in gpu.gpus}
    slots = [_slot(slot, gpus.get(slot.gpu_index), now) for slot in state.slots.values()]
    return {
        "total_gpus": len(slots),
        "total_allocated_containers": sum(len(s.containers) for s in state.slots.values()),
        "mig_enabled": state.mig_enabled,
        "gpus": slots,
    }


def _slot(slot: Slot, gpu: Gpu | None, now: Wall) -> dict[str, Value]:
    whole = slot.mig_index is None
    known = gpu if whole else None  # what a GPU as a whole does says nothing of its MIG devices
    used = (known.memory_used or 0) // MIB if known is not None else 0
    total = (known.memory_total or 0) // MIB if known is not None else 0
    kept = slot.reserved_for and (slot.reserved_end is None or now <= slot.reserved_end)
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
        "utilization": (known.utilization or 0) if known is not None else 0,
        "memory_used": used,
        "memory_total": total,
        "memory_percent": 100 * used / total if total else 0,
        "reserved": bool(kept),
        "reserved_for": slot.reserved_for if kept else None,
        "reserved_until": slot.reserved_until if kept else None,
    }


def status_lines(state: AllocatorState, gpu: Inventory | None, now: Wall) -> Iterator[str]:
    """`status`."""
    mode, unit = (
        ("MIG ENABLED", "GPU instances") if state.mig_enabled else ("Standard GPUs", "GPUs")
    )
    gpus = {} if gpu is None else {one.index: one for one in gpu.gpus}
    held = sum(len(slot.containers) for slot in state.slots.values())
    yield ""
    yield f"GPU Status ({mode}): {held} containers across {len(state.slots)} {unit}"
    yield ""
    for slot in state.slots.values():
        told = _slot(slot, gpus.get(slot.gpu_index), now)
        kind = "MIG" if slot.type is SlotType.MIG else "GPU"
        kept = f" [RESERVED for {printable(str(told['reserved_for']))}]" if told["reserved"] else ""
        yield f"{kind} {slot.id}: {len(slot.containers)} containers{kept}"
        memory = f"{told['memory_used']}/{told['memory_total']} MB"
        yield f"  Util: {told['utilization']}% | Mem: {memory}"
        yield from (f"    - {printable(name)}" for name in slot.containers)
        yield ""


def allocated(answer: Allocated | Rejected) -> Iterator[str]:
    """`allocate`."""
    if isinstance(answer, Rejected):
        yield f"✗ Allocation failed: {printable(answer.reason)}"
        return
    if answer.already:
        yield f"⚠ Container {answer.container} already has GPU/MIG {answer.slot} allocated"
    else:
        yield f"✓ Allocated GPU/MIG {answer.slot} to {answer.container}"
    yield f"DOCKER_ID={printable(answer.docker_id)}"


def released(answer: Released | NotAllocated) -> Iterator[str]:
    """`release`."""
    if isinstance(answer, NotAllocated):
        yield f"✗ No GPU allocated to {answer.container}"
    else:
        yield from (f"✓ Released GPU/MIG {one} from {answer.container}" for one in answer.slots)


def marked(answer: MarkedStopped | NoMetadata) -> Iterator[str]:
    """`mark-stopped`."""
    if isinstance(answer, NoMetadata):
        yield f"✗ No metadata found for {answer.container}"
    else:
        slot = printable(str(answer.slot))
        yield f"✓ Marked {answer.container} as stopped (GPU {slot} hold timer started)"


def released_stale(found: Mapping[str, str]) -> Iterator[str]:
    """`release-stale`: container → reason."""
    yield ""
    if not found:
        yield "✓ No stale allocations found"
        return
    yield f"✓ Released {len(found)} stale GPU allocation(s):"
    yield ""
    yield from (f"  {printable(name)}: {printable(why)}" for name, why in found.items())


def synced(slots: Iterable[tuple[str, str]], found: Mapping[str, str]) -> Iterator[str]:
    """`sync`: slots that changed and why; containers that are booked now, and where."""
    changed = list(slots)
    if changed:
        yield ""
        yield f"✓ Brought {len(changed)} slot(s) in line with the GPUs:"
        yield ""
        yield from (f"  {name}: {printable(why)}" for name, why in changed)
    yield ""
    if not found:
        yield "✓ All running containers already tracked (or none have GPUs)"
        return
    yield f"✓ Synced {len(found)} container(s) with GPU allocator:"
    yield ""
    yield from (f"  {printable(name)} → GPU/MIG {slot}" for name, slot in found.items())


def user_lines(user: str, count: int, held: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    """`user-status`: slot, container, priority."""
    bookings = list(held)
    yield ""
    yield f"{printable(user)}: {count} GPU/MIG instances across {len(bookings)} containers"
    yield ""
    for slot, name, priority in bookings:
        yield f"  GPU {slot}: {printable(name)} (priority {priority})"
