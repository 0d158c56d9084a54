"""What the books say: slots, the state, metadata, the logs and the limits. Pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ds01d.model.actor import Actor
from ds01d.model.primitives import (
    ContainerName,
    DeviceUuid,
    Digest,
    SlotId,
    UserName,
    Wall,
    Word,
)


class SlotType(Word):
    PHYSICAL = "physical_gpu"
    MIG = "mig_instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One entry of the state's `gpus`. Only what decisions need: the adapter carries the rest over.

    `gpu_index`/`mig_index` are read from the id ("1.2", the old "1:2", or "0": mig_index None).
    `containers` as written, doubles included. `reserved_for`/`reserved_until` as written, and
    `reserved_end` as understood: None where there is no end, or none that makes sense.
    """

    id: SlotId
    type: SlotType
    gpu_index: int
    mig_index: int | None = None
    containers: tuple[ContainerName, ...] = ()
    users: Mapping[str, int] = field(default_factory=dict)
    uuid: DeviceUuid | None = None
    profile: str | None = None
    reserved_for: UserName | None = None
    reserved_until: str | None = None
    reserved_end: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorState:
    """gpu-state.json, understood.

    `digest` identifies the bytes it was read from. `merge`: bookings that a writer without a lock
    put into a file which we had just replaced, and which are not in this one (invariant 8).
    """

    slots: Mapping[SlotId, Slot]
    mig_enabled: bool
    digest: Digest
    merge: frozenset[tuple[ContainerName, SlotId]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file that is there (or missing from its directory) but makes no sense.

    `digest` of its bytes ("missing" for none); `last_good` what the last good copy said, if any.
    Not the same as Unknown: it may be rebuilt once it has stayed so for the settle time.
    """

    reason: str
    digest: Digest
    last_good: AllocatorState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """container-metadata/NAME.json.

    Times both as written (naive local ISO) and as understood; None where missing or unreadable.
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
    digest: Digest = Digest("")


_RECORDED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.#-]*")
LONGEST_RECORDED_NAME = 250  # with ".json" it is a file name of 255 bytes (NAME_MAX)


def is_recordable(name: str) -> bool:
    """Whether a record may be written under `name`: one that a container can have, and a file.

    Docker takes names of any length.
    """
    return len(name) <= LONGEST_RECORDED_NAME and _RECORDED_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A metadata file that cannot be used: why, and whether it may be replaced.

    `replaceable`: an ordinary file of ours with broken content. A symlink, a directory, a FIFO, a
    file without permission, or one under a name no container can have that is no record of such a
    container, is only reported.
    """

    container: ContainerName
    reason: str
    digest: Digest
    replaceable: bool


LOG_RESOLUTION_S: Final = 1.0
"""What is written as 12:00:49 happened at 12:00:49.999, perhaps."""


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

    `seconds` None = for ever. `problem` says what in the limits could not be understood (then the
    hold never expires) or had to be assumed (whose user is not known), with the key; "" if nothing.
    """

    seconds: float | None
    source: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """GPUs that are kept for a user from `start` to `end`; None: there is no such end to it.

    `gpus` as slot ids; a GPU's index stands for all of it, MIG devices included.
    """

    user: UserName
    gpus: frozenset[str]
    start: Wall | None = None
    end: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """resource-limits.yaml, resolved: one rule, priority and quota for every user it names.

    `unnamed`: the rule of users whom it does not name; `unknown_user`: of a container whose user is
    not known (both the same where only that is given). `quotas`: how many slots a user may hold;
    None = any number. `unclear`: what is invalid in reservations, with the key; `passed_over`: keys
    that only look like one that is read. `version` and `size` (bytes) are those of the file;
    `is_part`: it is the beginning of what stood there before.
    """

    holds: Mapping[UserName, HoldRule]
    unknown_user: HoldRule
    unnamed: HoldRule | None = None
    priorities: Mapping[UserName, int] = field(default_factory=dict)
    default_priority: int = 0
    quotas: Mapping[UserName, int | None] = field(default_factory=dict)
    default_quota: int | None = 1
    reservations: tuple[Reservation, ...] = ()
    unclear: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    version: str = ""
    size: int = 0
    is_part: bool = False

    def hold(self, user: UserName | None) -> HoldRule:
        if user is None:
            return self.unknown_user
        return self.holds.get(user) or self.unnamed or self.unknown_user

    def priority(self, user: UserName | None) -> int:
        return (
            self.default_priority
            if user is None
            else self.priorities.get(user, self.default_priority)
        )

    def quota(self, user: UserName) -> int | None:
        """How many slots they may hold; None = any number."""
        return self.quotas.get(user, self.default_quota)
