"""What inspects have told, as bytes that outlive a restart.

Pure. Whether a kept fact is still true is not decided here: see `docker_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from ds01d.model.containers import Container, Request, State
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Wall

_VERSION = 2  # 2: requests are read in more forms, and the image is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """One instant on both clocks, to notice when the wall clock was set."""

    wall: Wall
    boot: Boot


class CachedContainer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container without its labels, which every list repeats."""

    id: ContainerId
    name: ContainerName
    state: State
    request: Request
    privileged: bool = False
    image: str = ""
    created: Wall | None = None
    started: Wall | None = None
    finished: Wall | None = None

    def container(self, labels: Mapping[str, str]) -> Container:
        return Container(
            id=self.id,
            name=self.name,
            state=self.state,
            labels=labels,
            request=self.request,
            privileged=self.privileged,
            image=self.image,
            created=self.created,
            started=self.started,
            finished=self.finished,
        )


class _Export(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    listed: ClockReading
    containers: list[CachedContainer]


def write_kept(listed: ClockReading, containers: Iterable[Container]) -> bytes:
    """Bytes for `read_kept`. `listed` is when the list was asked for that they were last in."""
    kept = [
        CachedContainer(
            id=known.id,
            name=known.name,
            state=known.state,
            request=known.request,
            privileged=known.privileged,
            image=known.image,
            created=known.created,
            started=known.started,
            finished=known.finished,
        )
        for known in containers
        if isinstance(known.request, Request)
    ]
    return msgspec.json.encode(_Export(version=_VERSION, listed=listed, containers=kept))


def read_kept(exported: bytes) -> tuple[ClockReading, dict[ContainerId, CachedContainer]] | None:
    """What `write_kept` wrote; None for whatever else."""
    try:
        told = msgspec.json.decode(exported, type=_Export)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if told.version != _VERSION:
        return None
    return told.listed, {kept.id: kept for kept in told.containers}
