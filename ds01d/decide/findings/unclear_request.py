"""Requests for GPUs that are not understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.device_resolution import DeviceIndex, find_candidates, index_devices
from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import is_exempt
from ds01d.model.containers import Container, GpuRequestKind
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdict
from ds01d.model.primitives import ContainerName, Unknown


def unclear_request(
    view: BooksIndex, verdicts: Mapping[ContainerName, Verdict]
) -> Iterator[Finding]:
    """A request that is not understood, depends on the host, or fits no device or several.

    What the container has is not known then. A foreign one is told only while it lives.
    """
    index = index_devices(view.snapshot.gpu, view.snapshot.state)
    for name, container in view.containers.items():
        ours = view.is_managed(container)
        if not ours and (not container.state.alive or is_exempt(container, view.config.exempt)):
            continue
        reason = _unclear(container, index, view)
        if reason is not None:
            booked = view.find_booked_slots(name)
            if booked:
                reason += f"; booked is {', '.join(sorted(booked))}"
            yield Finding(
                kind=FindingKind.UNCLEAR_REQUEST,
                container=name,
                slot=min(booked, default=None),
                reason=reason,
            )


def _unclear(container: Container, index: DeviceIndex | None, view: BooksIndex) -> str | None:
    request = container.request
    if isinstance(request, Unknown):
        return None  # Docker did not tell: that is no fault of the request
    if request.ask is GpuRequestKind.UNCLEAR:
        return f"asks for {request.describe()}"
    if request.ask is not GpuRequestKind.NAMED or not container.state.alive:
        return None
    if index is None or index.incomplete:
        return None  # what it may fit is not known
    known = view.checkpoint.resolved.get(container.id)
    if known is not None and known.devices is not None:
        return None
    for ref in request.devices:
        fitting = sorted(find_candidates(ref, index))
        if len(fitting) != 1:
            what = f"several devices: {', '.join(fitting)}" if fitting else "no device there is now"
            return f"asks for {ref.text}, which fits {what}"
    return None
