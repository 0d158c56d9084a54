"""GPUs that the driver or the kernel complains about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.index import BooksIndex, list_parts
from ds01d.model.devices import Inventory
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdict
from ds01d.model.primitives import ContainerName, SlotId


def unhealthy_gpu(view: BooksIndex, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """Failed, lost, reset required, ECC, an XID that is the GPU's fault, or a blind process list.

    One finding for each reason, also where it is that of several devices.
    """
    gpu = view.snapshot.gpu
    if not isinstance(gpu, Inventory):
        return
    for one in gpu.gpus:
        slots = [view.table.slot_of.get(device) for device in list_parts(gpu, one.uuid)]
        slot = next((slot for slot in slots if slot is not None), None)
        reasons: dict[str, SlotId | None] = dict.fromkeys(one.health, slot)
        if one.pci and one.pci in view.snapshot.faults:
            reasons[view.snapshot.faults[one.pci]] = slot
        for device in list_parts(gpu, one.uuid):
            blind = gpu.blind.get(device)
            if blind is not None and not blind.endswith(one.health):
                reasons.setdefault(blind, view.table.slot_of.get(device, slot))
        for reason, where in reasons.items():
            yield _finding(f"GPU {one.index} ({one.uuid}): {reason}", where)
    for index, reason in gpu.incomplete.items():
        there = (slot.id for slot in view.table.slots.values() if slot.gpu_index == index)
        yield _finding(f"GPU {index}: {reason}", next(there, None))


def _finding(reason: str, slot: SlotId | None) -> Finding:
    return Finding(kind=FindingKind.UNHEALTHY_GPU, container=None, slot=slot, reason=reason)
