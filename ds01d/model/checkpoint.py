"""What ds01d keeps between passes. Losing it is safe: waiting times start again.

Every `Boot` in here belongs to `boot_id` and is dropped after a reboot, or where one lies ahead of
the clock (`update_checkpoint.is_ahead_of_clock`): all have happened, but for the ends of waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.model.containers import EngineIdentity
from ds01d.model.drift import DriftKey, RepairKey
from ds01d.model.history import ContainerFingerprint
from ds01d.model.primitives import (
    Boot,
    ContainerId,
    ContainerName,
    DeviceUuid,
    Digest,
    SlotId,
    Wall,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFirstSeen:
    """A drift, seen unchanged since `first`."""

    first: Boot
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredTime:
    """A wall-clock time, converted to CLOCK_BOOTTIME once: `anchor` as written, `at` converted."""

    anchor: str
    at: Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The container last seen behind a name.

    `alive_at`: when it last had processes. `unborn_at`: a moment before it existed. `former`: the
    containers that had the name before and are unknown to Docker, newest first: a booking under the
    name may be theirs, and a process of theirs may be alive (decision 153).
    """

    id: ContainerId
    labelled: bool
    created: Wall | None
    alive_at: Boot | None = None
    unborn_at: Boot | None = None
    former: tuple[ContainerId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The devices that a request meant when its container started; None = not known."""

    started: Wall | None
    devices: frozenset[DeviceUuid] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """With Docker as the books: what a container had in the last pass, by its request.

    `devices` None: its hold is over, and it has nothing until it starts again.
    """

    name: ContainerName
    started: Wall | None
    devices: frozenset[DeviceUuid] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingFirstSeen:
    """When a name's newest booking was first seen; `inherited`: it was there before ds01d."""

    at: Boot
    inherited: bool
    slots: frozenset[SlotId] | None = None  # of the name, at the last look; None: none is new
    missed_at: Boot | None = None  # the last sweep before it appeared


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRun:
    """Readings without a gap, by each of which a container used none of its slots.

    `since`, `read_at`: the first and the last of them; `began`: the first by the wall clock, as it
    was set then. `started`: Docker's time of the container's start.
    """

    since: Boot
    began: Wall
    read_at: Boot
    started: Wall | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSeen:
    """A container that was `started` then was seen to be able to open what it requested.

    `lost`, `lost_wall`: since when it cannot any more; None: it can, or that is not known now.
    """

    started: Wall | None
    lost: Boot | None = None
    lost_wall: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSeen:
    """The version of the limits that was read last, and from when on it may end a retention.

    `size` (bytes) and `named` (number of users), 0 if a part of it is invalid; `before` and
    `named_before`: those of the version that it was compared with.
    """

    version: str
    size: int
    before: int
    settled: Boot
    named: int = 0
    named_before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """An admin's freeze of a subject ("*" = everything). `until` None = until thawed.

    `ends`: where `until` lies on the clock of this boot; None: not known yet, or never.
    """

    subject: str
    by: str
    reason: str
    since: Wall
    until: Wall | None = None
    ends: Boot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """A change that an administrator undid: it is not made again while its subject is unchanged.

    `taken`, `given`: the bookings that must not be removed and added again. `containers`: their
    fingerprints at that time; `records`: digests of the metadata after it (None: no record; "": not
    known yet). `drifts`: those without a container, key → fingerprint.
    """

    by: str
    since: Wall
    taken: frozenset[tuple[ContainerName, SlotId]] = frozenset()
    given: frozenset[tuple[ContainerName, SlotId]] = frozenset()
    containers: Mapping[ContainerName, ContainerFingerprint] = field(default_factory=dict)
    records: Mapping[ContainerName, Digest | None] = field(default_factory=dict)
    drifts: Mapping[DriftKey, str] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        """The containers, else the slots, of the change."""
        slots = {key.slot or "the state" for key in self.drifts}
        return sorted({*self.containers, *self.records} or slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """How often a repair was reverted by another process and repeated. `not_before`: back-off."""

    times: int
    last: Boot
    not_before: Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The whole checkpoint. Immutable: each pass makes the next one.

    `passed_at`: the last pass; `gaps`: from when to when none was made, though there should have
    been some (ds01d or the whole host stood still), as long as that is of use.
    `asked_at`: the last pass in which Docker answered (gaps in its answers are measured from it).
    `swept_at`: the last sweep in which it answered: what is new since was made since.
    `since`: waiting times before this moment do not count (boot, dockerd's start, a gap).
    `engine`: the trusted engine; `untrusted_engine`: another one since, which freezes releases.
    `inventory`: fingerprint of the devices; `inventory_seen`: since when it is this one without a
    break; `inventory_changed`: when it last took the place of another; `inventory_conditions`: the
    boot and the driver under which it was last seen. `devices`: the number of devices remembered,
    to judge an inventory soon after boot. `slots`: the device behind each slot, also where the file
    has no UUID. `has_baseline`: a state has been read before; bookings that appear now are new
    ones. `removing`: since when a container is seen being removed, or half removed. `idle`: running
    containers that use none of their slots; empty where nobody wants to know.
    `released`: moments of releases without a destroy event (pace). `undone`: what was taken back,
    by the id of the entry that did it. `limits`: None = none were read since the boot.
    """

    boot_id: str = ""
    passed_at: Boot | None = None
    gaps: tuple[tuple[Boot, Boot], ...] = ()
    asked_at: Boot | None = None
    swept_at: Boot | None = None
    # Decision 3: a removal and a new creation may hide in a gap, so every wait starts again after
    # it.
    since: Boot | None = None
    instance: str = ""
    # Invariant 7: another engine does not list these containers, and its 404s are honest.
    engine: EngineIdentity | None = None
    untrusted_engine: EngineIdentity | None = None
    inventory: str = ""
    # Decision 149: under the same boot and driver a GPU cannot lose its ability to do MIG.
    inventory_conditions: str = ""
    inventory_seen: Boot | None = None
    inventory_changed: Boot | None = None
    devices: int = 0
    # A lost checkpoint is no first start: then a booking may be part of a creation.
    has_baseline: bool = False
    # The oldest format has no UUIDs: after a renumbering only this shows what a slot meant.
    slots: Mapping[SlotId, DeviceUuid] = field(default_factory=dict)
    # By kind and subject, with the fingerprint as the value: what has changed meanwhile has to
    # settle again.
    sightings: Mapping[DriftKey, DriftFirstSeen] = field(default_factory=dict)
    absent: Mapping[ContainerName, Boot] = field(default_factory=dict)
    # Invariant 4: converted once, or each step of the wall clock would move every deadline.
    starts: Mapping[str, AnchoredTime] = field(default_factory=dict)
    # Decision 67: by the name in the books; the ID distinguishes a rename from a removal.
    identities: Mapping[ContainerName, Identity] = field(default_factory=dict)
    # Decision 5: what an index meant is known only from the inventory at the start.
    resolved: Mapping[ContainerId, Resolved] = field(default_factory=dict)
    # Decision 203: Docker forgets what it had before, and does not know that a hold is over.
    holdings: Mapping[ContainerId, Holding] = field(default_factory=dict)
    appeared: Mapping[ContainerName, BookingFirstSeen] = field(default_factory=dict)
    # Decision 17: when it came, ended or went; not for as long as it exists.
    unlabelled: Mapping[ContainerName, Boot] = field(default_factory=dict)
    destroyed: Mapping[ContainerName, tuple[ContainerId, Boot]] = field(default_factory=dict)
    # Decision 74: Docker has no time for these, and they can never start again.
    removing: Mapping[ContainerId, Boot] = field(default_factory=dict)
    # Decision 270: time that nobody saw is no idle time, so what is kept is a run of readings.
    idle: Mapping[ContainerId, IdleRun] = field(default_factory=dict)
    # Decision 279: what a container never had, it did not lose.
    device_access: Mapping[ContainerId, AccessSeen] = field(default_factory=dict)
    # Decision 7: noted before the releases are made, so that a killed daemon keeps the pace.
    released: tuple[Boot, ...] = ()
    # Invariant 13: two programs that repair each other's work in turns would write for ever.
    repairs: Mapping[RepairKey, Repair] = field(default_factory=dict)
    freezes: Mapping[str, Freeze] = field(default_factory=dict)
    undone: Mapping[str, Undone] = field(default_factory=dict)
    limits: LimitsSeen | None = None
