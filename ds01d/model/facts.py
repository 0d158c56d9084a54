"""What one source says about one thing: a container, a GPU, a slot, a metadata record.

Pure values. Nothing here reads a file, asks a clock or decides; a fact is what an adapter
understood, and it says so in one form however many forms the source has for it.

Times: `Wall` is seconds since the epoch (UTC), `Boot` is seconds on CLOCK_BOOTTIME.
They never mix: waiting is counted on `Boot` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType

ContainerName = NewType("ContainerName", str)
ContainerId = NewType("ContainerId", str)
SlotId = NewType("SlotId", str)
DeviceUuid = NewType("DeviceUuid", str)
UserName = NewType("UserName", str)
Wall = NewType("Wall", float)
Boot = NewType("Boot", float)
Digest = NewType("Digest", str)

Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class Word(str, Enum):
    """A closed set of words that print as themselves (Python 3.10 has no StrEnum)."""

    __str__ = str.__str__

    def __format__(self, how: str) -> str:
        return str.__format__(self, how)


class Source(Word):
    """Where a fact comes from."""

    DOCKER = "docker"
    NVML = "nvml"
    STATE = "state"
    METADATA = "metadata"
    OPERATIONS = "operations"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A source that did not answer. A value of its own, so nothing takes it for an empty answer.

    `missing`: there is no such file, which is not the same as one that cannot be read.
    """

    source: Source
    reason: str
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One instant on both clocks. `boot_id` tells whether two `boot` values may be compared."""

    wall: Wall
    boot: Boot
    boot_id: str


# --- Docker -----------------------------------------------------------------------------------


class State(Word):
    """Docker's `State.Status`."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    def __init__(self, word: str) -> None:
        """`alive`: has processes now or any moment, so that its devices are in use."""
        self.alive = word in {"running", "paused", "restarting"}


class RefKind(Word):
    """How a request names a device."""

    UUID = "uuid"  # GPU-… or MIG-…
    INDEX = "index"  # "0": GPU index
    MIG_INDEX = "mig-index"  # "0:1": GPU index, MIG index
    MINOR = "minor"  # /dev/nvidia0: device minor number
    LEGACY_MIG = "legacy-mig"  # MIG-GPU-<uuid>/<gi>/<ci>


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRef:
    """One device as a request names it; `text` as Docker had it, without quotes or prefix."""

    kind: RefKind
    text: str


class Ask(Word):
    """What a container's request for GPUs amounts to."""

    NONE = "none"  # no GPU asked for
    NAMED = "named"  # devices named one by one
    COUNT = "count"  # --gpus N: GPUs 0..N-1
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A container's request for GPUs, whatever form it had: device request, CDI, env, node."""

    ask: Ask
    devices: tuple[DeviceRef, ...] = ()
    count: int = 0


NO_REQUEST = Request(ask=Ask.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container as the engine tells it.

    `request` is Unknown where the engine lists the container but would not inspect it.
    `created`, `started`, `finished`: None where Docker has no valid time (year 1).
    """

    id: ContainerId
    name: ContainerName
    state: State
    labels: Mapping[str, str] = field(default_factory=dict)
    request: Request | Unknown = NO_REQUEST
    privileged: bool = False
    created: Wall | None = None
    started: Wall | None = None
    finished: Wall | None = None

    @property
    def labelled(self) -> bool:
        """Carries the labels of a finished DS01 creation."""
        return "aime.mlc" in self.labels or "ds01.managed" in self.labels

    @property
    def pinned(self) -> bool:
        return self.labels.get("ds01.protected", "").strip().lower() == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The engine says 404 for everything that was asked: the only proof of absence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """Which engine this is; `device` counts only within one boot (device numbers may change)."""

    id: str
    root_dir: str
    inode: int
    device: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """A `destroy` event: this container is gone, at this moment of CLOCK_BOOTTIME."""

    id: ContainerId
    name: ContainerName
    at: Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Docker's answer: every container, and since when it has answered without a gap.

    `since` moves forward when dockerd (re)starts, when the event stream breaks and when a call
    fails; 0 while whoever asks knows of no gap. `instance` names the dockerd process where the
    socket tells (pid and start time), else "".
    `destroyed` holds the destroy events of this stream, newest per name.
    """

    identity: EngineIdentity
    instance: str
    since: Boot
    containers: Mapping[ContainerId, Container]
    destroyed: Mapping[ContainerName, Destroyed] = field(default_factory=dict)
    by_name: Mapping[ContainerName, Container] = field(default_factory=dict)


# --- GPUs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A physical GPU. `mig` is None where the GPU cannot do MIG. Readings: None = unknown.

    Memory in bytes, `utilization` in percent, `temperature` in degrees Celsius.
    `pci` as the kernel's journal names it, "0000:3b:00"; "" = unknown. `failed`: why it cannot be
    used at all (it is lost, or has to be reset), also in `health`; "" if it can.
    """

    uuid: DeviceUuid
    index: int
    minor: int | None = None
    pci: str = ""
    name: str = ""
    mig: bool | None = None
    health: tuple[str, ...] = ()
    failed: str = ""
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: int | None = None
    temperature: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigDevice:
    """A MIG device; `index` as `nvidia-smi -L` counts it, `gi`/`ci` its instance ids.

    Memory in bytes.
    """

    uuid: DeviceUuid
    gpu: DeviceUuid
    gpu_index: int
    index: int
    profile: str = ""
    gi: int | None = None
    ci: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process on a device.

    `container` is None for a process of the host, Unknown where that could not be told.
    `memory` in bytes, None = the driver does not say.
    """

    pid: int
    device: DeviceUuid
    container: ContainerId | Unknown | None
    user: str = ""
    command: str = ""
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One NVML sample.

    `blind`: devices whose process list could not be read; nothing about their use is known.
    `sampled_at`: when the sample began.
    """

    gpus: tuple[Gpu, ...]
    migs: tuple[MigDevice, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    blind: Mapping[DeviceUuid, str] = field(default_factory=dict)
    sampled_at: Boot = Boot(0.0)
    driver: str = ""


# --- the books --------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A metadata file that cannot be used: why, and whether it may be replaced.

    `replaceable`: an ordinary file of ours with broken content. A symlink, a directory, a FIFO, a
    file without permission or under a name no container can have is only reported.
    """

    container: ContainerName
    reason: str
    digest: Digest
    replaceable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The operations log on a container: newest pending create_start, newest create_failed.

    `started` is None once a create_success or a newer outcome answered it.
    """

    started: Wall | None = None
    failed: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of the operations log."""

    at: Wall
    operation: str
    user: str
    container: str
    gpu: str
    status: str
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRule:
    """How long a user's stopped container keeps its slot.

    `seconds` None = for ever. `problem` says what in the limits could not be understood (then the
    hold never expires) or had to be assumed (an unknown user), with the key; "" if nothing.
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

    `quotas`: how many slots a user may hold; None = any number. `unclear`: what is said of
    reservations and makes no sense, with the key.
    """

    holds: Mapping[UserName, HoldRule]
    unknown_user: HoldRule
    priorities: Mapping[UserName, int] = field(default_factory=dict)
    default_priority: int = 0
    quotas: Mapping[UserName, int | None] = field(default_factory=dict)
    default_quota: int | None = 1
    reservations: tuple[Reservation, ...] = ()
    unclear: tuple[str, ...] = ()

    def hold(self, user: UserName | None) -> HoldRule:
        rule = self.holds.get(user) if user is not None else None
        return self.unknown_user if rule is None else rule

    def priority(self, user: UserName | None) -> int:
        return (
            self.default_priority
            if user is None
            else self.priorities.get(user, self.default_priority)
        )

    def quota(self, user: UserName) -> int | None:
        """How many slots they may hold; None = any number."""
        return self.quotas.get(user, self.default_quota)
