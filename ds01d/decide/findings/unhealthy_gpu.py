"""GPUs that the driver or the kernel complains about, and those that nobody can use."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.model.devices import Inventory
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import SlotId


def unhealthy_gpu(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """Failed, lost, reset required, ECC, an XID that is the GPU's fault, or a blind process list.

    Also one in MIG mode without a MIG device: it is offered to nobody, in whole or in part.

    One finding for each reason, also where it is that of several devices.
    """
    inventory = index.snapshot.gpu
    if not isinstance(inventory, Inventory):
        return
    for gpu in inventory.gpus:
        slots = [index.table.slot_of.get(device) for device in index.processes.list_parts(gpu.uuid)]
        slot = next((slot for slot in slots if slot is not None), None)
        reasons: dict[str, SlotId | None] = dict.fromkeys(gpu.health, slot)
        if gpu.pci and gpu.pci in index.snapshot.faults:
            reasons[index.snapshot.faults[gpu.pci]] = slot
        # The slot table leaves it out, so without this nobody would learn why it is missing.
        if gpu.mig and not gpu.failed and not index.processes.migs.get(gpu.uuid):
            reasons[_WITHOUT_INSTANCES] = slot
        for device in index.processes.list_parts(gpu.uuid):
            blind = inventory.blind.get(device)
            # The blind process list of a failed GPU is no second problem.
            if blind is not None and not blind.endswith(gpu.health):
                reasons.setdefault(blind, index.table.slot_of.get(device, slot))
        for reason, slot_id in reasons.items():
            yield _make_finding(f"GPU {gpu.index} ({gpu.uuid}): {reason}", slot_id)
    for gpu_index, reason in inventory.incomplete.items():
        slot_ids = (slot.id for slot in index.table.slots.values() if slot.gpu_index == gpu_index)
        yield _make_finding(f"GPU {gpu_index}: {reason}", next(slot_ids, None))


_WITHOUT_INSTANCES = (
    "it is in MIG mode and has no MIG device, so it is not offered:"
    " create instances (nvidia-smi mig -cgi), or leave MIG mode (nvidia-smi -mig 0)"
)


def _make_finding(reason: str, slot: SlotId | None) -> Finding:
    return Finding(kind=FindingKind.UNHEALTHY_GPU, container=None, slot=slot, reason=reason)
