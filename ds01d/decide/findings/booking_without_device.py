"""Bookings that the container cannot use."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.device_resolution import DeviceIndex, index_devices, is_lasting, resolve_devices
from ds01d.decide.index import BooksIndex
from ds01d.decide.verdict import find_resolved_devices
from ds01d.model.containers import Container, GpuRequestKind, Request
from ds01d.model.devices import Inventory
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Holds, Verdict, VerdictReason, Verdicts
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Unknown


def booking_without_device(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """A holder that cannot use its slot's device: its request lacks it, or the device is gone.

    A stopped one too, for which the request counts as it would be understood today.
    """
    device_index = index_devices(index.snapshot.gpu, index.snapshot.state)
    for slot in index.table.slots.values():
        for name in dict.fromkeys(slot.containers):
            reason = index.table.dead.get(slot.id)
            # While a container is being created, its request may still change with the next step of
            # the wrapper.
            if reason is None and not _is_being_created(verdicts.get(name)):
                reason = _explain_mismatch(name, slot.id, index, device_index)
            if reason is not None:
                yield Finding(
                    kind=FindingKind.BOOKING_WITHOUT_DEVICE,
                    container=name,
                    slot=slot.id,
                    reason=reason,
                )


def _is_being_created(verdict: Verdict | None) -> bool:
    return isinstance(verdict, Holds) and verdict.why is VerdictReason.CREATING


def _explain_mismatch(
    name: ContainerName, slot: SlotId, index: BooksIndex, device_index: DeviceIndex | None
) -> str | None:
    container = index.containers.get(name)
    if container is None or isinstance(container.request, Unknown):
        return None
    request = container.request
    if request.ask is GpuRequestKind.NONE:
        does = "runs" if container.state.alive else "is stopped"
        return f"it {does}, but has no GPU by its request"
    if request.ask is not GpuRequestKind.NAMED:
        return None
    device = index.table.device_of.get(slot)
    # A running container keeps the devices of its start; a stopped one gets what its request means
    # at the next start.
    if container.state.alive:
        return _explain_living(container, request, slot, device, index)
    # As of nearly all: it names the device itself.
    if device is not None and device in (container.requested_uuids or ()):
        return None
    return _explain_stopped(request, slot, device, device_index)


def _explain_living(
    container: Container,
    request: Request,
    slot: SlotId,
    device: DeviceUuid | None,
    index: BooksIndex,
) -> str | None:
    devices = find_resolved_devices(container, index)
    texts = request.describe()
    if devices is None:
        return f"it asks for {texts}; which devices that meant when it started is not known"
    # A GPU that fails does not say which device the slot has.
    if (
        device is None
        and isinstance(index.snapshot.gpu, Inventory)
        and index.snapshot.gpu.incomplete
    ):
        return None
    if device not in devices:
        return f"it asks for {texts}, which is not the device of {slot}"
    return None


def _explain_stopped(
    request: Request, slot: SlotId, device: DeviceUuid | None, device_index: DeviceIndex | None
) -> str | None:
    # Invariant 1: what devices there are is not known.
    if device is None or device_index is None or device_index.incomplete:
        return None
    devices, _ = resolve_devices(request, device_index)
    if devices is not None and device in devices:
        return None
    texts = request.describe()
    if devices is None:
        return f"it is stopped and asks for {texts}, which fits no device, or several, today"
    if not is_lasting(request):
        return (
            f"it is stopped and asks for {texts}, which today is not the device of {slot};"
            " what it means at the next start is not known"
        )
    gone = sorted(devices - frozenset(device_index.at.values()))
    if gone:
        return f"it is stopped and asks for {texts}; {', '.join(gone)} is gone"
    return f"it is stopped and asks for {texts}, which is not the device of {slot}"
