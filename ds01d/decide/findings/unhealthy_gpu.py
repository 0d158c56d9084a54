"""GPUs that the driver or the kernel complains about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.view import View, parts
from ds01d.model.devices import Inventory
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.facts import ContainerName
from ds01d.model.holding import Verdict


def unhealthy_gpu(view: View, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """Lost, reset required, ECC or an XID that is the GPU's fault."""
    gpu = view.seen.gpu
    if not isinstance(gpu, Inventory):
        return
    for one in gpu.gpus:
        slots = [view.table.slot_of.get(device) for device in parts(gpu, one.uuid)]
        told = list(one.health)
        if one.pci and one.pci in view.seen.faults:
            told.append(view.seen.faults[one.pci])
        for reason in told:
            yield Finding(
                kind=FindingKind.UNHEALTHY_GPU,
                container=None,
                slot=next((slot for slot in slots if slot is not None), None),
                reason=f"GPU {one.index} ({one.uuid}): {reason}",
            )
