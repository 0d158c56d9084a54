"""What containers are created from, and for whom: the catalogue of images, an order, a plan.

Pure values. `containers.image_selection` chooses among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ds01d.model.allocation import Allocated
from ds01d.model.confinement import Confinement
from ds01d.model.limits import ResourceLimits
from ds01d.model.primitives import ContainerId, ContainerName, DeviceUuid, SlotId


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user of this host. `groups`: the further ones, where they are known."""

    uid: int
    name: str
    gid: int = 0
    home: str = "/"
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls: for whom, and whether as root, who may do all."""

    person: Person
    root: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of a framework. `architecture` "" = it runs on any."""

    framework: str
    version: str
    architecture: str
    reference: str

    @property
    def title(self) -> str:
        """As labels and people name it: "pytorch-2.5.0"."""
        return f"{self.framework}-{self.version}" if self.version else self.framework


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every container gets.

    In mounts and user `{user}`, `{uid}`, `{gid}` and `{home}` stand for its owner's.
    `command` () = the image's own; `user` "" = the image's own; `network` and `ipc` "" = Docker's
    defaults; `shm_bytes` 0 = Docker's default.
    """

    command: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    user: str = ""
    network: str = ""
    ipc: str = ""
    shm_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Every image there is, in the order of the file; `origin` is the file, for messages."""

    origin: str
    images: tuple[Image, ...] = ()
    setup: Setup = field(default_factory=Setup)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A container to be created: `setup` with its placeholders filled.

    `confinement`: takes the place of the setup's user and mounts.
    """

    name: ContainerName
    image: str
    labels: Mapping[str, str]
    devices: Sequence[DeviceUuid]
    setup: Setup = field(default_factory=Setup)
    resources: ResourceLimits = field(default_factory=ResourceLimits)
    confinement: Confinement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a pull: bytes of the layers known so far, and Docker's status."""

    done: int
    total: int
    doing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The container to create. `slots` has an entry per GPU: a slot, or None for the best."""

    name: ContainerName
    owner: Person
    image: str
    framework: str
    architecture: str = ""
    custom_image: str = ""
    slots: Sequence[SlotId | None] = (None,)
    setup: Setup = field(default_factory=Setup)
    resources: ResourceLimits = field(default_factory=ResourceLimits)
    confinement: Confinement | None = None
    start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The container that was created."""

    name: ContainerName
    id: ContainerId
    booked: tuple[Allocated, ...]
