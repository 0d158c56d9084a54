"""Requests for GPUs that are not understood."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.device_resolution import DeviceIndex, find_candidates, index_devices
from ds01d.decide.exemptions import is_exempt
from ds01d.decide.index import BooksIndex
from ds01d.model.containers import Container, GpuRequestKind
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts
from ds01d.model.primitives import Unknown


def unclear_request(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """A request that is not understood, depends on the host, or fits no device or several.

    Its devices are unknown then. A foreign container is reported only while it runs.
    """
    device_index = index_devices(index.snapshot.gpu, index.snapshot.state)
    for name, container in index.containers.items():
        is_managed = index.is_managed(container)
        if not is_managed and (
            not container.state.alive or is_exempt(container, index.config.exempt)
        ):
            continue
        reason = _explain_unclear(container, device_index, index)
        if reason is not None:
            booked = index.find_booked_slots(name)
            if booked:
                reason += f"; booked is {', '.join(sorted(booked))}"
            yield Finding(
                kind=FindingKind.UNCLEAR_REQUEST,
                container=name,
                slot=min(booked, default=None),
                reason=reason,
            )


def _explain_unclear(
    container: Container, device_index: DeviceIndex | None, index: BooksIndex
) -> str | None:
    request = container.request
    # Docker did not return the request, which is no fault of the request.
    if isinstance(request, Unknown):
        return None
    if request.ask is GpuRequestKind.UNCLEAR:
        return f"asks for {request.describe()}"
    if request.ask is not GpuRequestKind.NAMED or not container.state.alive:
        return None
    # Without a complete inventory, a reference that fits nothing may still be valid.
    if device_index is None or device_index.incomplete:
        return None
    resolved = index.checkpoint.resolved.get(container.id)
    if resolved is not None and resolved.devices is not None:
        return None
    for ref in request.devices:
        matches = sorted(find_candidates(ref, device_index))
        if len(matches) != 1:
            target = (
                f"several devices: {', '.join(matches)}" if matches else "no device there is now"
            )
            return f"asks for {ref.text}, which fits {target}"
    return None
