"""Devices in use that no slot stands for."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.decide.verdict import find_resolved_devices
from ds01d.model.containers import GpuRequestKind
from ds01d.model.devices import Inventory
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import Unknown


def device_without_slot(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """A DS01 container that runs on a device which is not handed out; its booking is left alone.

    Where a GPU does not say which one it is, no device is known to have no slot.
    """
    if isinstance(index.snapshot.gpu, Inventory) and index.snapshot.gpu.incomplete:
        return
    for name in verdicts:
        container = index.containers.get(name)
        if container is None or not container.state.alive or isinstance(container.request, Unknown):
            continue
        if container.request.ask is not GpuRequestKind.NAMED:
            continue
        # The booking is left alone: which slot the container should have cannot be derived from a
        # device that is not handed out.
        for device in sorted(find_resolved_devices(container, index) or ()):
            if device not in index.table.slot_of:
                yield Finding(
                    kind=FindingKind.DEVICE_WITHOUT_SLOT,
                    container=name,
                    slot=None,
                    reason=f"it has {device}, which has no slot",
                )
