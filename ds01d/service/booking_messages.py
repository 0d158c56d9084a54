"""The parameters of the calls that book, and the booking as it is sent. Decides nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ds01d.model.allocation import Allocated
from ds01d.model.primitives import BookingId
from ds01d.service.varlink import Parameters

_Text = Annotated[str, msgspec.Meta(max_length=256)]  # it gets into logs
_Number = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]


class AllocateParameters(Parameters, frozen=True):
    container: str | None = None
    user: _Text | None = None
    slot: _Text | None = None
    most: _Number | None = None
    priority: _Number | None = None
    another: bool | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    profile: _Text | None = None
    reason: _Text | None = None
    wait: bool | None = None
    process: bool | None = None
    notify: bool | None = None


class ReleaseParameters(Parameters, frozen=True):
    container: str | None = None
    id: Annotated[BookingId, msgspec.Meta(max_length=256)] | None = None
    if_gone: bool | None = None


class ContainerParameters(Parameters, frozen=True):
    container: str


def encode_booking(booking: Allocated) -> dict[str, object]:
    """The booking as the interface describes it."""
    return {
        "container": booking.container,
        "user": booking.user,
        "slot": booking.slot,
        "docker_id": booking.docker_id,
        "device": booking.device,
        "priority": booking.priority,
        "already": booking.already,
        "shared_with": list(booking.shared_with),
        "slots": [
            {
                "slot": given.slot,
                "docker_id": given.docker_id,
                "device": given.device,
                "shared_with": list(given.shared_with),
            }
            for given in booking.all_slots
        ],
        "id": booking.id,
        "until": booking.until,
        "warnings": list(booking.warnings),
    }
