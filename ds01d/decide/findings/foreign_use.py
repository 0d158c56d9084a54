"""Containers that are not ours on GPUs that are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ds01d.decide.index import BooksIndex
from ds01d.decide.owner_guess import describe_guess
from ds01d.decide.usage import find_uses, uses_by_slot
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import Unknown
from ds01d.model.usage import DeviceUse


def foreign_use(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """A foreign container with a slot by its request or its processes: it counts as taken.

    A broad request has a finding of its own; here only the devices on which it computes.
    """
    if index.engine is None:
        return
    slots = {slot: (device, ()) for slot, device in index.table.device_of.items()}
    containers = [c for c in index.engine.containers.values() if not index.is_managed(c)]
    uses = find_uses(index.snapshot, index.checkpoint, index.config, containers)
    foreign = [_restrict_broad_request(use, index) for use in uses if use.id is not None]
    for slot, slot_uses in sorted(uses_by_slot(foreign, slots, index.snapshot.gpu).items()):
        # Decision 81: one finding for each slot, so that containers which come and go on it are one
        # condition.
        for use in slot_uses:
            owner = None if use.container is None else index.find_owner(use.container)
            whose = describe_guess(owner)
            yield Finding(
                kind=FindingKind.FOREIGN_USE,
                container=use.container,
                slot=slot,
                reason=f"foreign container {use.user} ({(use.id or '')[:12]}) uses {slot}{whose}",
            )


def _restrict_broad_request(use: DeviceUse, index: BooksIndex) -> DeviceUse:
    """`broad-request` reports the request itself: here only the devices that are really used."""
    engine = index.engine
    container = engine.containers.get(use.id) if engine is not None and use.id is not None else None
    if container is None or isinstance(container.request, Unknown):
        return use
    if not container.request.is_broad:
        return use
    return replace(use, devices=tuple(sorted(index.processes.find_computing_devices(container))))
