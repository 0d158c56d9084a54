"""Containers that are not ours on GPUs that are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.holdings import devices_of
from ds01d.decide.view import View
from ds01d.model.containers import Container
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.facts import ContainerName, SlotId
from ds01d.model.holding import Verdict


def foreign_use(view: View, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """A foreign container with a slot by its request or its processes: it counts as taken."""
    engine = view.engine
    if engine is None:
        return
    for container in engine.containers.values():
        if view.managed(container) or not container.state.alive:
            continue
        used = sorted(slots_in_use(container, view))
        for slot in used:
            yield Finding(
                kind=FindingKind.FOREIGN_USE,
                container=container.name,
                slot=slot,
                reason=f"foreign container {container.name} ({container.id[:12]}) uses {slot}",
            )


def slots_in_use(container: Container, view: View) -> frozenset[SlotId]:
    """The slots that a container has by its request, or uses by its processes."""
    devices = devices_of(container, view) or frozenset()
    used = {view.table.slot_of.get(device) for device in devices}
    used |= {
        view.table.slot_of.get(device)
        for device, processes in view.by_device.items()
        if any(process.container == container.id for process in processes)
    }
    return frozenset(slot for slot in used if slot is not None)
