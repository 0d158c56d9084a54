"""The books (allocation records): slots, state, metadata, logs and limits. Pure values."""

from __future__ import annotations

import hashlib
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

MISSING: Final = Digest("missing")
"""The digest of a state file that does not exist."""


class SlotType(Word):
    PHYSICAL = "physical_gpu"
    MIG = "mig_instance"


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
    what of it is in the file too, of reservations that are over.
    """

    slots: Mapping[SlotId, Slot]
    mig_enabled: bool
    digest: Digest
    merge: frozenset[tuple[ContainerName, SlotId]] = frozenset()
    derived: frozenset[tuple[ContainerName, SlotId]] = frozenset()
    doubled: frozenset[tuple[ContainerName, SlotId]] = frozenset()

    def find_slots(self, name: ContainerName) -> tuple[SlotId, ...]:
        """The slots that list a container, in their order."""
        return tuple(slot.id for slot in self.slots.values() if name in slot.containers)

    def list_bookings(self) -> frozenset[tuple[ContainerName, SlotId]]:
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
        return replace(self, slots=slots, derived=frozenset(), doubled=frozenset())

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """container-metadata/NAME.json.

    Times both as written (naive local ISO) and as understood; None where missing or unreadable.
    `booking`: the ID of the allocation; None for a booking of another writer, or of ds01d's own.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRule:
    """How long a user's stopped container keeps its slot.

    `seconds` None: for ever. `problem`: the key of the limits that is invalid (then the retention
    never ends), or what was assumed for an unknown user; "" without one.
    """

    seconds: float | None
    source: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """GPUs reserved for a user from `start` to `end`; None: unbounded.

    `gpus` as slot ids; a GPU's index stands for all of it, MIG devices included.
    """

    user: UserName
    gpus: frozenset[str]
    start: Wall | None = None
    end: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """What each container of a user may use of the host. None, and `slice` "": no limit.

    `memory_swap`: memory and swap together; -1: any swap. `slice`: the cgroup of its containers.
    `problem`: a limit that is invalid, so that no container may be created.
    """

    cpus: float | None = None
    memory: int | None = None
    memory_swap: int | None = None
    shm_bytes: int | None = None
    pids: int | None = None
    slice: str = ""
    max_containers: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """resource-limits.yaml, resolved: one rule, priority and quota for every user it names.

    `unnamed`: the rule for users without one; `unknown_user`: for containers whose user is not
    known. `quotas`: how many slots a user may hold; None: any number. `unclear`: invalid keys of
    reservations; `passed_over`: unread keys that look like one that is read (decision 109).
    `version` and `size` (bytes) of the file; `is_part`: the file is the beginning of the one before
    (decision 129).
    """

    holds: Mapping[UserName, HoldRule]
    unknown_user: HoldRule
    unnamed: HoldRule | None = None
    priorities: Mapping[UserName, int] = field(default_factory=dict)
    default_priority: int = 0
    quotas: Mapping[UserName, int | None] = field(default_factory=dict)
    default_quota: int | None = 1
    resources: Mapping[UserName, ResourceLimits] = field(default_factory=dict)
    default_resources: ResourceLimits = field(default_factory=ResourceLimits)
    reservations: tuple[Reservation, ...] = ()
    unclear: tuple[str, ...] = ()
    # Decision 109: the key that somebody believes to be read has another value.
    passed_over: tuple[str, ...] = ()
    version: str = ""
    size: int = 0
    # Decision 129: within one process the bytes show that a file was cut short.
    is_part: bool = False

    def find_hold(self, user: UserName | None) -> HoldRule:
        if user is None:
            return self.unknown_user
        return self.holds.get(user) or self.unnamed or self.unknown_user

    def find_priority(self, user: UserName | None) -> int:
        return (
            self.default_priority
            if user is None
            else self.priorities.get(user, self.default_priority)
        )

    def find_quota(self, user: UserName) -> int | None:
        """How many slots they may hold; None = any number."""
        return self.quotas.get(user, self.default_quota)

    def find_resources(self, user: UserName) -> ResourceLimits:
        """What each of their containers may use."""
        limits = self.resources.get(user, self.default_resources)
        return replace(limits, slice=limits.slice.replace("{user}", _sanitize_login(user)))


_MAX_SLICE_LOGIN: Final = 32


def _sanitize_login(login: str) -> str:
    """A login as a part of a slice's name, as the server's other tools write it."""
    plain = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_-]", "_", login.partition("@")[0]))
    if len(plain) <= _MAX_SLICE_LOGIN:
        return plain
    digest = hashlib.md5(login.encode(), usedforsecurity=False).hexdigest()
    return f"{plain[:27]}_{digest[:4]}"
