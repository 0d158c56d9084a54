"""Bookings that the container cannot use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.holdings import devices_of
from ds01d.decide.view import View
from ds01d.model.containers import Ask
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.facts import ContainerName, SlotId, Unknown
from ds01d.model.holding import Verdict


def booking_without_device(
    view: View, verdicts: Mapping[ContainerName, Verdict]
) -> Iterator[Finding]:
    """A holder that cannot use its slot's device: its request lacks it, or the device is gone."""
    for slot in view.table.slots.values():
        for name in dict.fromkeys(slot.containers):
            reason = view.table.dead.get(slot.id) or _mismatch(name, slot.id, view)
            if reason is not None:
                yield Finding(
                    kind=FindingKind.BOOKING_WITHOUT_DEVICE,
                    container=name,
                    slot=slot.id,
                    reason=reason,
                )


def _mismatch(name: ContainerName, slot: SlotId, view: View) -> str | None:
    container = view.container(name)
    if container is None or not container.state.alive or isinstance(container.request, Unknown):
        return None
    if container.request.ask is Ask.NONE:
        return "it runs, but has no GPU by its request"
    if container.request.ask is not Ask.NAMED:
        return None
    devices = devices_of(container, view)
    texts = ", ".join(ref.text for ref in container.request.devices)
    if devices is None:
        return f"it asks for {texts}; which devices that meant when it started is not known"
    if view.table.device.get(slot) not in devices:
        return f"it asks for {texts}, which is not the device of {slot}"
    return None
