"""What is asked of the allocator: slots; and what comes of that, of giving them back, of a stop.

A refusal is an answer like any other, not an error: errors are for books that cannot be read or
written. `warnings` are what went wrong beside it (a log that cannot be written), a line each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds01d.model.primitives import (
    BookingId,
    ContainerName,
    DeviceUuid,
    SlotId,
    UserName,
    Wall,
    Word,
)

if TYPE_CHECKING:  # what a client prints needs none of it, and is to start at once
    from ds01d.model.limits import GpuQuota
    from ds01d.model.reservation import ReservingProcess


class Refusal(Word):
    """Why somebody gets no slot; callers match these words."""

    USER_AT_LIMIT = "USER_AT_LIMIT"
    AGGREGATE_GPU_QUOTA_EXCEEDED = "AGGREGATE_GPU_QUOTA_EXCEEDED"
    EXCEEDS_CONTAINER_LIMIT = "EXCEEDS_CONTAINER_LIMIT"
    FULL_GPU_NOT_ALLOWED = "FULL_GPU_NOT_ALLOWED"
    NO_GPU_AVAILABLE = "NO_GPU_AVAILABLE"
    INVENTORY_UNKNOWN = "GPU_INVENTORY_UNKNOWN"
    LIMITS_UNREADABLE = "LIMITS_UNREADABLE"
    NO_SUCH_SLOT = "NO_SUCH_SLOT"
    SLOT_TAKEN = "SLOT_TAKEN"
    SLOT_RESERVED = "SLOT_RESERVED"
    SLOT_IN_USE = "SLOT_IN_USE"
    SLOT_UNUSABLE = "SLOT_UNUSABLE"
    NO_SUCH_PROFILE = "NO_SUCH_PROFILE"
    FEWER_SLOTS_BOOKED = "FEWER_SLOTS_BOOKED"
    NAME_TAKEN = "NAME_TAKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """What is asked for. `max_slots`: how many the user may hold, None = any number.

    `quota`: how much of the GPUs they may hold; None where the limits count slots.
    `slot`: this one and no other. `additional`: besides those that the container has already.
    `count` slots, all or none; `profile`: of this MIG profile or slot type, None = of any.
    `process`: reserved for as long as that runs.
    """

    container: ContainerName
    user: UserName
    max_slots: int | None
    priority: int
    quota: GpuQuota | None = None
    slot: SlotId | None = None
    additional: bool = False
    count: int = 1
    profile: str | None = None
    process: ReservingProcess | None = None


ONLY_WHOLE = "only for users of whole GPUs"
"""In the detail of a refusal: such slots are among those that are not offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocated:
    """`container` holds `slot`: since now, or (`already`) since before, and nothing was written.

    `docker_id` is what a device request names: a MIG device's UUID, a whole GPU's index. `device`
    is its UUID where that is known. `shared_with`: who holds the slot besides. `more`: its other
    slots, one by one. `id`: of the allocation, None where another writer made it. `until`: when the
    reservation ends unless its container exists by then; None: it is none any more.
    """

    container: ContainerName
    user: UserName
    slot: SlotId
    docker_id: str
    device: DeviceUuid | None = None
    priority: int = 0
    already: bool = False
    shared_with: tuple[ContainerName, ...] = ()
    more: tuple[Allocated, ...] = ()
    id: BookingId | None = None
    until: Wall | None = None
    warnings: tuple[str, ...] = ()

    @property
    def all_slots(self) -> tuple[Allocated, ...]:
        """The allocation of each of its slots."""
        return (self, *self.more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """No slot; `reason` reads "USER_AT_LIMIT (2/2)": the word, and details.

    `is_lasting`: nobody could give back so much. `holdings`: what a user at the limit has, for
    people. `notify_until`: until then a notice comes when there is room; None: none comes.
    """

    container: ContainerName
    user: UserName
    refusal: Refusal
    detail: str = ""
    warnings: tuple[str, ...] = ()
    # Decision 211: waiting for it would keep everybody behind in the queue.
    is_lasting: bool = False
    # Decision 229: scripts match the reason byte for byte, so this is no part of it.
    holdings: str = ""
    notify_until: Wall | None = None

    @property
    def reason(self) -> str:
        return f"{self.refusal} ({self.detail})" if self.detail else str(self.refusal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """`container` held these slots and does not any more."""

    container: ContainerName
    user: UserName | None
    slots: tuple[SlotId, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAllocated:
    """There was nothing to release."""

    container: ContainerName
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedStopped:
    """The hold of `container` counts from its stop on; `already`: it was marked before."""

    container: ContainerName
    slot: SlotId | None
    already: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMetadata:
    """Nothing is known of `container`, so there is no hold to start."""

    container: ContainerName
