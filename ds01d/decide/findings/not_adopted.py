"""Running DS01 containers with a GPU and no booking, that are not adopted."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.decide.verdict import find_resolved_devices
from ds01d.model.containers import GpuRequestKind
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import Unknown


def not_adopted(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """Nobody booked it and ds01d may not: adoption is off, or it could not be known what it has."""
    for name in verdicts:
        container = index.containers.get(name)
        if container is None or not container.state.alive or index.find_booked_slots(name):
            continue
        request = container.request
        # Other requests name no device; they have findings of their own.
        if isinstance(request, Unknown) or request.ask is not GpuRequestKind.NAMED:
            continue
        if index.policy.adopt == "off":
            reason = 'runs on a GPU without a booking (policy.adopt = "off")'
        elif find_resolved_devices(container, index) is None:
            reason = "runs on a GPU without a booking; which GPU is unknown"
        else:
            continue
        yield Finding(kind=FindingKind.NOT_ADOPTED, container=name, slot=None, reason=reason)
