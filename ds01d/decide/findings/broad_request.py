"""Requests for more than named devices."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.exemptions import is_exempt
from ds01d.decide.index import BooksIndex
from ds01d.decide.owner_guess import describe_guess
from ds01d.model.containers import Container, GpuRequestKind
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import ContainerName, SlotId, Unknown


def broad_request(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """A container that asked for all GPUs or a number of them, DS01's or not: one finding each.

    No booking can match such a request, and a foreign one is reported once, not for each slot.
    """
    for name in dict.fromkeys((*verdicts, *_list_foreign(index))):
        container = index.containers.get(name)
        if (
            container is None
            or not container.state.alive
            or is_exempt(container, index.config.exempt)
        ):
            continue
        if isinstance(container.request, Unknown) or not container.request.is_broad:
            continue
        booked, used = index.find_booked_slots(name), _list_used_slots(container, index)
        reason = f"asks for {container.request.describe()}"
        if index.is_managed(container):
            reason += f", booked is {', '.join(sorted(booked)) or 'nothing'}"
            reason += f", computes on {', '.join(used)}" if not booked.issuperset(used) else ""
        else:
            use = f"computes on {', '.join(used)}" if used else _describe_idle(container, index)
            reason = f"foreign container {name} ({container.id[:12]}) {reason}, {use}"
        reason += describe_guess(index.find_owner(name))
        yield Finding(
            kind=FindingKind.BROAD_REQUEST,
            container=name,
            slot=min(booked, default=None),
            reason=reason,
        )


def _list_foreign(index: BooksIndex) -> Iterator[ContainerName]:
    """Containers that are not DS01's; only a sweep has findings, and it sees all of them."""
    return (name for name, container in index.containers.items() if not index.is_managed(container))


def _list_used_slots(container: Container, index: BooksIndex) -> list[SlotId]:
    """What its processes take away from others."""
    devices = index.processes.find_computing_devices(container)
    slots = {index.table.slot_of.get(device) for device in devices}
    return sorted(slot for slot in slots if slot is not None)


def _describe_idle(container: Container, index: BooksIndex) -> str:
    request = container.request
    takes_all = not isinstance(request, Unknown) and request.ask is GpuRequestKind.ALL
    takes_none = takes_all and index.config.allocator.all_gpus == "when-used"
    return "computes on none, takes none" if takes_none else "computes on none"
