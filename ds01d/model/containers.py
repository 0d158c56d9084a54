"""Docker's side: containers, the GPUs they request, and the engine itself. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.model.container_labels import (
    ContainerType,
    find_claimed_devices,
    find_container_type,
    has_ds01_labels,
    list_user_labels,
)
from ds01d.model.primitives import (
    BookingId,
    Boot,
    ContainerId,
    ContainerName,
    DeviceUuid,
    Unknown,
    Wall,
    Word,
)
from ds01d.model.reservation import BOOKING_LABEL, parse_booking_id


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
        """`alive`: it has processes, or may have at any moment, so its devices are in use."""
        # Restarting too: it may compute again before anybody looks.
        self.alive = word in {"running", "paused", "restarting"}


class RefKind(Word):
    """How a request names a device."""

    UUID = "uuid"  # GPU-… or MIG-…
    INDEX = "index"  # "0": GPU index
    MIG_INDEX = "mig-index"  # "0:1": GPU index, MIG index
    MINOR = "minor"  # /dev/nvidia0: device minor number
    LEGACY_MIG = "legacy-mig"  # MIG-GPU-<uuid>/<gi>/<ci>
    SHORT_UUID = "short-uuid"  # GPU-8f3c or MIG-41: the beginning of a UUID
    PCI = "pci"  # 0000:3b:00.0: PCI address of a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRef:
    """One device as a request names it; `text` without quotes and prefix."""

    kind: RefKind
    text: str


class GpuRequestKind(Word):
    """The form of a container's request for GPUs."""

    NONE = "none"  # no GPU asked for
    NAMED = "named"  # devices named one by one
    COUNT = "count"  # --gpus N: GPUs 0..N-1
    ALL = "all"
    # Decision 79: an answer in words that are not known is not a missing answer.
    UNCLEAR = "unclear"  # a part of it is not understood, or its effect depends on the host


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A container's request for GPUs, whatever form it had: device request, CDI, env, node.

    With `COUNT`, `devices` are those that it names in addition. `unclear`: the parts that are not
    understood, as the container has them; only with `UNCLEAR`, where `devices` and `count` are
    what may be meant.
    """

    ask: GpuRequestKind
    devices: tuple[DeviceRef, ...] = ()
    count: int = 0
    unclear: tuple[str, ...] = ()

    @property
    def is_broad(self) -> bool:
        """It asks for all GPUs or for a number of them."""
        return self.ask in (GpuRequestKind.ALL, GpuRequestKind.COUNT)

    def list_uuids(self) -> tuple[DeviceUuid, ...] | None:
        """The devices, sorted, where each is named by its whole UUID; None of any other request."""
        if self.ask is not GpuRequestKind.NAMED or self.count:
            return None
        if any(ref.kind is not RefKind.UUID for ref in self.devices):
            return None
        return tuple(sorted({DeviceUuid(ref.text) for ref in self.devices}))

    def describe(self) -> str:
        """The request for people: "all GPUs", "2 GPUs", "0, MIG-…"; at most 64 names."""
        names = [ref.text for ref in self.devices[:_MAX_SHOWN]]
        if (more := len(self.devices) - _MAX_SHOWN) > 0:
            names.append(f"{more} more")
        match self.ask:
            case GpuRequestKind.NONE:
                return "no GPU"
            case GpuRequestKind.ALL:
                return "all GPUs"
            case GpuRequestKind.COUNT:
                return ", ".join((f"{self.count} GPUs", *names))
            case GpuRequestKind.UNCLEAR:
                return f"GPUs in a form that is not understood: {', '.join(self.unclear)}"
            case _:
                return ", ".join(names)


_MAX_SHOWN = 64  # more devices than a host has slots that one would name
NO_REQUEST = Request(ask=GpuRequestKind.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container as the engine describes it.

    `request` is Unknown if the engine lists the container and its inspect failed.
    `image`: the reference that the container was created with. `cgroup_parent`: as it was asked
    for, "" if it was not. `homes`: whose home folders it mounts, or was made from, by their names.
    `created`, `started`, `finished`: None where Docker has no valid time (year 1).
    `labelled`: it carries the labels of a finished DS01 creation. `type`: who made it, by them.
    `claimed_booking`, `claimed_devices`, `user_labels`: the allocation, the devices and the users
    that its labels name. `pinned`: its label asks that its booking stays as it is.
    `requested_uuids`: the devices of a request that names each by its whole UUID, sorted; None of
    any other request.
    """

    id: ContainerId
    name: ContainerName
    state: State
    labels: Mapping[str, str] = field(default_factory=dict)
    # Invariant 1: a failed inspect must not look like a container without a GPU.
    request: Request | Unknown = NO_REQUEST
    privileged: bool = False
    image: str = ""
    cgroup_parent: str = ""
    homes: tuple[str, ...] = ()
    created: Wall | None = None
    started: Wall | None = None
    finished: Wall | None = None
    labelled: bool = field(init=False, compare=False, repr=False)
    type: ContainerType = field(init=False, compare=False, repr=False)
    claimed_booking: BookingId | None = field(init=False, compare=False, repr=False)
    claimed_devices: tuple[str, ...] = field(init=False, compare=False, repr=False)
    user_labels: tuple[str, ...] = field(init=False, compare=False, repr=False)
    pinned: bool = field(init=False, compare=False, repr=False)
    requested_uuids: tuple[DeviceUuid, ...] | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Once: a sweep asks ten times for each container, which outlives many sweeps.
        object.__setattr__(self, "labelled", has_ds01_labels(self.labels))
        object.__setattr__(self, "type", find_container_type(self.labels))
        booking = parse_booking_id(self.labels.get(BOOKING_LABEL))
        object.__setattr__(self, "claimed_booking", booking)
        object.__setattr__(self, "claimed_devices", find_claimed_devices(self.labels))
        object.__setattr__(self, "user_labels", list_user_labels(self.labels))
        protected = self.labels.get("ds01.protected", "")
        object.__setattr__(self, "pinned", protected.strip().lower() == "true")
        uuids = self.request.list_uuids() if isinstance(self.request, Request) else None
        object.__setattr__(self, "requested_uuids", uuids)

    @property
    def is_unnamed(self) -> bool:
        """Its name cannot be used, so it is called by its ID (decision 134)."""
        return str(self.name) == self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFound:
    """The engine answered 404 for ID and name: the only proof of absence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """Which engine this is; `device` counts only within one boot (device numbers may change).

    `id`: "" if the engine has no lasting one. `driver`: its storage driver; `image_store`: what
    keeps images and snapshots if the driver does not (containerd), else "". As in `/info`.
    """

    id: str
    root_dir: str
    inode: int
    device: int
    # Another storage driver or image store hides the containers until it is switched back.
    driver: str = ""
    image_store: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """A `destroy` event: this container is gone, at this moment of CLOCK_BOOTTIME.

    `labelled`: it was a finished DS01 container (`Container.labelled`), not a step of a creation.
    """

    id: ContainerId
    name: ContainerName
    at: Boot
    labelled: bool = True


class EngineWarningKind(Word):
    """A problem of an engine that answers."""

    STREAM_CUT = "stream-cut"
    STREAM_REFUSED = "stream-refused"
    STREAM_LOSSY = "stream-lossy"
    NO_LASTING_ID = "no-lasting-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWarning:
    """A problem that stops nothing; `text` describes it, `fix` what to do about it."""

    kind: EngineWarningKind
    text: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Docker's answer: every container, and since when it has answered without a gap.

    `since`: CLOCK_BOOTTIME of the last gap (dockerd restarted, the event stream broke, a call
    failed); 0 without one. `instance`: pid and start time of the dockerd process, "" if unknown.
    `destroyed`: the newest destroy event of each name. `warnings`: problems for an administrator.
    """

    identity: EngineIdentity
    instance: str
    since: Boot
    containers: Mapping[ContainerId, Container]
    destroyed: Mapping[ContainerName, Destroyed] = field(default_factory=dict)
    by_name: Mapping[ContainerName, Container] = field(default_factory=dict)
    warnings: tuple[EngineWarning, ...] = ()
