"""The allocator of the daemon, by calls of its socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from ds01d.model.allocation import (
    Allocated,
    MarkedStopped,
    NoMetadata,
    NotAllocated,
    Refusal,
    Rejected,
    Released,
)
from ds01d.model.primitives import BookingId, ContainerName, DeviceUuid, SlotId, UserName, Wall
from ds01d.service.client import NO_METADATA, NOT_ALLOCATED, ServiceClient
from ds01d.service.exchange import ServiceRefused, ServiceUnanswered

# In a row: each reply resets the count, so a wait outlives any number of restarts.
_REPEATS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A place in the queue: `position` 1 is next. `next_hold_end`: seconds since the epoch."""

    position: int
    ahead: int
    next_hold_end: float | None
    reason: str


class SlotAllocator(Protocol):
    """What books slots: ds01d, or a process by itself (`reconcile.allocator`)."""

    def allocate(
        self,
        user: UserName,
        container: ContainerName | None,
        max_gpus: int | None = None,
        priority: int | None = None,
        slot: SlotId | None = None,
        *,
        another: bool = False,
        count: int = 1,
        profile: str | None = None,
        reason: str = "",
        on_waiting: Callable[[Waiting], None] | None = None,
        notify: bool = False,
    ) -> Allocated | Rejected:
        """Book `slot`, or the best one."""

    def release(
        self,
        container: ContainerName | None,
        booking: BookingId | None = None,
        *,
        if_gone: bool = False,
    ) -> Released | NotAllocated:
        """Release every slot of a container, or of an allocation; with both, if it still has it.

        `if_gone`: only while Docker has no container of that name.
        """

    def mark_stopped(
        self, container: ContainerName, started: Wall | None = None
    ) -> MarkedStopped | NoMetadata:
        """Record that a container was stopped."""


class RemoteAllocator(ServiceClient):
    """The allocator of the daemon: what `reconcile.allocator.Allocator` does, by calls."""

    def allocate(
        self,
        user: UserName,
        container: ContainerName | None,
        max_gpus: int | None = None,
        priority: int | None = None,
        slot: SlotId | None = None,
        *,
        another: bool = False,
        count: int = 1,
        profile: str | None = None,
        reason: str = "",
        for_process: bool = False,
        on_waiting: Callable[[Waiting], None] | None = None,
        notify: bool = False,
    ) -> Allocated | Rejected:
        """Book `slot`, or the `count` best ones. A call without an answer is made once more.

        `container` None: under a name that ds01d makes up; `profile`: slots of this one only;
        `reason`: for history and log. `for_process`: as long as the process runs that had us ask.
        `on_waiting`: wait for a slot, and call this whenever the place in the queue changes.
        `notify`: where it is refused, have the user given a notice once there is room.
        """
        parameters = {
            "container": container,
            "user": user,
            "slot": slot,
            "most": max_gpus,
            "priority": priority,
            "another": another or None,
            "count": None if count == 1 else count,
            "profile": profile,
            "reason": reason or None,
            "wait": None if on_waiting is None else True,
            "process": for_process or None,
            "notify": notify or None,
        }
        # The same booking twice is one booking, unless it has no name, or is to be one more.
        is_repeatable = container is not None and not another
        try:
            if on_waiting is None:
                reply = self.call("Allocate", parameters, repeats=int(is_repeatable))
                return parse_booking(reply["booking"])
            for reply in self.stream("Allocate", parameters, repeats=is_repeatable * _REPEATS):
                if reply["booking"] is not None:
                    return parse_booking(reply["booking"])
                on_waiting(Waiting(**reply["waiting"]))
        except ServiceRefused as refusal:
            return _parse_rejection(refusal, user, container)
        raise ServiceUnanswered("the wait for a slot ended without an answer")

    def release(
        self,
        container: ContainerName | None,
        booking: BookingId | None = None,
        *,
        if_gone: bool = False,
    ) -> Released | NotAllocated:
        """Release every slot of a container, or of an allocation; with both, if it still has it.

        `if_gone`: only while Docker has no container of that name; raises `ServiceRefused`.
        """
        name = container or ContainerName(booking or "")
        parameters = {"container": container, "id": booking, "if_gone": if_gone or None}
        try:
            # Without an answer not repeated: the name may be booked for another container by then.
            reply = self.call("Release", parameters)
        except ServiceRefused as refusal:
            if refusal.parameters.get("code") != NOT_ALLOCATED:
                raise
            return NotAllocated(container=name, warnings=_parse_warnings(refusal.parameters))
        return Released(
            container=ContainerName(reply["container"]),
            user=None if reply["user"] is None else UserName(reply["user"]),
            slots=tuple(map(SlotId, reply["slots"])),
            warnings=_parse_warnings(reply),
        )

    def mark_stopped(
        self,
        container: ContainerName,
        started: float | None = None,  # noqa: ARG002 - the daemon asks Docker itself
    ) -> MarkedStopped | NoMetadata:
        """Record that a container was stopped."""
        try:
            reply = self.call("MarkStopped", {"container": container})
        except ServiceRefused as refusal:
            if refusal.parameters.get("code") != NO_METADATA:
                raise
            return NoMetadata(container=container)
        slot = reply["slot"]
        return MarkedStopped(
            container=container,
            slot=None if slot is None else SlotId(slot),
            already=reply["already"],
            warnings=_parse_warnings(reply),
        )


def parse_booking(booking: Mapping[str, Any]) -> Allocated:
    first, *more = (_parse_slot(slot, booking) for slot in booking["slots"])
    return replace(
        first,
        more=tuple(more),
        id=booking["id"],
        until=booking["until"],
        warnings=_parse_warnings(booking),
    )


def _parse_slot(slot: Mapping[str, Any], booking: Mapping[str, Any]) -> Allocated:
    device = slot["device"]
    return Allocated(
        container=ContainerName(booking["container"]),
        user=UserName(booking["user"]),
        slot=SlotId(slot["slot"]),
        docker_id=slot["docker_id"],
        device=None if device is None else DeviceUuid(device),
        priority=booking["priority"],
        already=booking["already"],
        shared_with=tuple(map(ContainerName, slot["shared_with"])),
    )


def _parse_rejection(
    refusal: ServiceRefused, user: UserName, container: ContainerName | None
) -> Rejected:
    """The refusal of a slot. Raises what is another error."""
    try:
        code = Refusal(refusal.parameters.get("code"))
    except ValueError:
        raise refusal from None
    return Rejected(
        container=container or ContainerName(""),
        user=user,
        refusal=code,
        detail=str(refusal.parameters.get("detail", "")),
        warnings=_parse_warnings(refusal.parameters),
        holdings=str(refusal.parameters.get("held") or ""),
        notify_until=_parse_moment(refusal.parameters.get("notify_until")),
    )


def _parse_moment(value: object) -> Wall | None:
    return Wall(float(value)) if isinstance(value, int | float) else None


def _parse_warnings(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, parameters.get("warnings") or ()))
