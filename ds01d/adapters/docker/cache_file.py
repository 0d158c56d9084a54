"""Inspected containers as bytes that outlive a restart of the daemon (`containers.json`).

Pure. Whether a restored container is still as it was is decided by `cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ds01d.adapters.docker.listing import ClockReading
from ds01d.model.containers import Container, Request, State
from ds01d.model.primitives import ContainerId, ContainerName, Wall

_VERSION = 3  # 3: what may say whose a container is


class CachedContainer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container without its labels, which every list repeats."""

    id: ContainerId
    name: ContainerName
    state: State
    request: Request
    privileged: bool = False
    image: str = ""
    cgroup_parent: str = ""
    homes: tuple[str, ...] = ()
    created: Wall | None = None
    started: Wall | None = None
    finished: Wall | None = None

    def to_container(self, labels: Mapping[str, str]) -> Container:
        return Container(
            id=self.id,
            name=self.name,
            state=self.state,
            labels=labels,
            request=self.request,
            privileged=self.privileged,
            image=self.image,
            cgroup_parent=self.cgroup_parent,
            homes=self.homes,
            created=self.created,
            started=self.started,
            finished=self.finished,
        )


class _CacheFile(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    listed: ClockReading
    containers: list[CachedContainer]


def encode_cache(listed: ClockReading, containers: Iterable[Container]) -> bytes:
    """Bytes for `decode_cache`. `listed`: when the last list of these containers was asked for."""
    cached = [
        CachedContainer(
            id=container.id,
            name=container.name,
            state=container.state,
            request=container.request,
            privileged=container.privileged,
            image=container.image,
            cgroup_parent=container.cgroup_parent,
            homes=container.homes,
            created=container.created,
            started=container.started,
            finished=container.finished,
        )
        for container in containers
        # A request that could not be read may be readable after the upgrade that restarts us.
        if isinstance(container.request, Request)
    ]
    return msgspec.json.encode(_CacheFile(version=_VERSION, listed=listed, containers=cached))


def decode_cache(
    content: bytes,
) -> tuple[ClockReading, dict[ContainerId, CachedContainer]] | None:
    """What `encode_cache` wrote; None for anything else, another version included."""
    try:
        file = msgspec.json.decode(content, type=_CacheFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    # An inspect of each container is cheaper than a wrong reading of an old format.
    if file.version != _VERSION:
        return None
    return file.listed, {container.id: container for container in file.containers}
