"""The books (allocation records): slots, state, metadata and logs. Pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ds01d.model.actor import Actor
from ds01d.model.primitives import (
    BookingId,
    ContainerName,
    DeviceUuid,
    Digest,
    SlotId,
    UserName,
    Wall,
    Word,
)
from ds01d.model.reservation import ReservingProcess

MISSING: Final = Digest("missing")
"""The digest of a state file that does not exist."""


class SlotType(Word):
    PHYSICAL = "physical_gpu"
    MIG = "mig_instance"


Booking = tuple[ContainerName, SlotId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One entry of the state's `gpus`. Only what decisions need: the adapter keeps the rest.

    `gpu_index`/`mig_index` are read from the id ("1.2", the old "1:2", or "0": mig_index None).
    `containers` as written, doubles included. `reserved_for`/`reserved_until` as written, and
    `reserved_end` as understood: None if there is no valid end.
    """

    id: SlotId
    type: SlotType
    gpu_index: int
    mig_index: int | None = None
    containers: tuple[ContainerName, ...] = ()
    # Text, not user names: the file may count anything.
    users: Mapping[str, int] = field(default_factory=dict)
    uuid: DeviceUuid | None = None
    profile: str | None = None
    reserved_for: UserName | None = None
    reserved_until: str | None = None
    reserved_end: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorState:
    """gpu-state.json, parsed.

    `digest` of the bytes it was read from. `merge`: bookings that a writer without a lock added to
    a file that ds01d had just replaced, and which are missing here (invariant 8). `derived`: with
    Docker as the books, what containers have by their requests; it is never written. `doubled`:
    what of it is in the file too, of reservations that are over. `uncharged`: the containers that
    count for nobody's quota: their user is a guess, or they have stopped and are free at once.
    """

    slots: Mapping[SlotId, Slot]
    mig_enabled: bool
    digest: Digest
    merge: frozenset[Booking] = frozenset()
    derived: frozenset[Booking] = frozenset()
    doubled: frozenset[Booking] = frozenset()
    # Decision 225: a label with a foreign name could otherwise fill somebody's quota.
    uncharged: frozenset[ContainerName] = frozenset()

    def find_slots(self, name: ContainerName) -> tuple[SlotId, ...]:
        """The slots that list a container, in their order."""
        return tuple(slot.id for slot in self.slots.values() if name in slot.containers)

    def list_bookings(self) -> frozenset[Booking]:
        """Every container with each slot that lists it."""
        return frozenset(
            (name, slot.id) for slot in self.slots.values() for name in slot.containers
        )

    def without_derived(self) -> AllocatorState:
        """The state as it is written."""
        if not self.derived:
            return self
        slots = {
            slot.id: replace(slot, containers=names, users={})
            if len(names := self._list_stored(slot)) < len(slot.containers)
            else slot
            for slot in self.slots.values()
        }
        return replace(
            self, slots=slots, derived=frozenset(), doubled=frozenset(), uncharged=frozenset()
        )

    def _list_stored(self, slot: Slot) -> tuple[ContainerName, ...]:
        return tuple(name for name in slot.containers if (name, slot.id) not in self.derived)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A state file that is invalid, or missing from its directory.

    `digest` of its bytes ("missing" if there is no file); `last_good`: the last good copy, if any.
    Unlike Unknown, it may be rebuilt once it has stayed so for the settle time.
    """

    reason: str
    digest: Digest
    # A rebuild without it would lose the bookings of stopped containers.
    last_good: AllocatorState | None = None

    @property
    def was_never_written(self) -> bool:
        """There is no file, and there was none before. A file that is lost leaves its last copy."""
        return self.digest == MISSING and self.last_good is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """container-metadata/NAME.json.

    Times both as written (naive local ISO) and as understood; None where missing or unreadable.
    `booking`: the ID of the allocation; None for a booking of another writer, or of ds01d's own.
    `processes`: for which it is reserved, none for a booking or a reservation without one.
    `digest` identifies the bytes; "" for a record that is yet to be written.
    """

    container: ContainerName
    user: UserName | None
    gpu_id: SlotId | None
    priority: int | None = None
    allocated_at: Wall | None = None
    allocated_text: str | None = None
    stopped_at: Wall | None = None
    stopped_text: str | None = None
    booking: BookingId | None = None
    processes: tuple[ReservingProcess, ...] = ()
    digest: Digest = Digest("")


_RECORDED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.#-]*")
LONGEST_RECORDED_NAME = 250  # with ".json" it is a file name of 255 bytes (NAME_MAX)


def is_recordable(name: str) -> bool:
    """A record can be written for `name`: it is a valid container name and fits a file name.

    Docker accepts names of any length.
    """
    return len(name) <= LONGEST_RECORDED_NAME and _RECORDED_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A metadata file that cannot be used: why, and whether it may be replaced.

    `replaceable`: a regular file with broken content. A symlink, a directory, a FIFO, an unreadable
    file, or a file whose name is not a valid container name, is only reported.
    """

    container: ContainerName
    reason: str
    digest: Digest
    # Decision 73: any other file in the folder may be somebody's.
    replaceable: bool


LOG_RESOLUTION_S: Final = 1.0
"""A line of 12:00:49 may mean 12:00:49.999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The operations log on a container: newest pending create_start, newest create_failed.

    `started` is None once a create_success or a newer outcome answered it.
    """

    started: Wall | None = None
    failed: Wall | None = None

    @property
    def latest_start(self) -> Wall | None:
        """The last moment at which it may have begun: a line has whole seconds, cut off."""
        # Decision 47: a creation must not end before it began, so the later moment counts.
        return None if self.started is None else Wall(self.started + LOG_RESOLUTION_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of the operations log.

    `actor`: who did it, where the writer knows; it is written at the end of the details.
    """

    at: Wall
    operation: str
    user: str
    container: str
    gpu: str
    status: str
    details: str
    actor: Actor | None = None
