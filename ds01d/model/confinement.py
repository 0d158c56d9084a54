"""What keeps a container that the service makes from being more than its owner. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder of the host in a container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """How a container of a user is made: as that user, without capabilities and host namespaces.

    `user`: "uid:gid"; where root is possible inside, the catalogue's, or "" for the image's own.
    `workdir` "": the image's own.
    """

    user: str
    groups: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    workdir: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    drops_capabilities: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStatus:
    """A path as lstat shows it. `link`: where it leads; None for what is no symlink."""

    uid: int
    is_folder: bool
    others_write: bool
    link: str | None = None
