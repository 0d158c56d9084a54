"""Requests for more than named devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import is_exempt
from ds01d.model.containers import Container, GpuRequestKind
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdict
from ds01d.model.primitives import ContainerName, Unknown


def broad_request(view: BooksIndex, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """A container that asked for all GPUs or a number of them, DS01's or not: one finding each.

    No booking can match such a request, and of a foreign one it is told once, not for each slot.
    """
    for name in dict.fromkeys((*verdicts, *_foreign(view))):
        container = view.find_container(name)
        if (
            container is None
            or not container.state.alive
            or is_exempt(container, view.config.exempt)
        ):
            continue
        if isinstance(container.request, Unknown) or not container.request.is_broad:
            continue
        booked = view.find_booked_slots(name)
        told = f"asks for {container.request.describe()}"
        if view.is_managed(container):
            told += f", booked is {', '.join(sorted(booked)) or 'nothing'}"
        else:
            told = f"foreign container {name} ({container.id[:12]}) {told}, {_use(container, view)}"
        yield Finding(
            kind=FindingKind.BROAD_REQUEST,
            container=name,
            slot=min(booked, default=None),
            reason=told,
        )


def _foreign(view: BooksIndex) -> Iterator[ContainerName]:
    """Containers that are not DS01's; only a sweep has findings, and it sees all of them."""
    return (name for name, container in view.containers.items() if not view.is_managed(container))


def _use(container: Container, view: BooksIndex) -> str:
    """What it takes away from others."""
    slots = {view.table.slot_of.get(device) for device in view.find_computing_devices(container)}
    computes = ", ".join(sorted(slot for slot in slots if slot is not None))
    if computes:
        return f"computes on {computes}"
    return f"computes on none{_takes(container, view)}"


def _takes(container: Container, view: BooksIndex) -> str:
    request = container.request
    idle = not isinstance(request, Unknown) and request.ask is GpuRequestKind.ALL
    return ", takes none" if idle and view.config.allocator.all_gpus == "when-used" else ""
