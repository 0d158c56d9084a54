"""What the container commands need of the world, as protocols. Nothing here imports an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ds01d.model.books import LogLine
from ds01d.model.containers import Container
from ds01d.model.creation import Plan, Progress
from ds01d.model.primitives import ContainerId


class ContainerEngine(Protocol):
    """Docker, as one who changes something. Every call ends in time.

    Whatever fails raises `EngineFailed`; its `EngineRefused` says that Docker answered no, and so
    that nothing was done. After any other it is open whether it was done, or still will be.
    """

    @property
    def instance(self) -> str:
        """The process that gave the last answer; "" if that is not known."""

    def find(self, reference: str) -> Container | None:
        """Inspect by name or id. None only if Docker itself says 404."""

    def binds(self, reference: str) -> tuple[str, ...]:
        """The folders of the host that a container mounts, as "/host:/inside[:options]"."""

    def has_image(self, reference: str) -> bool: ...

    def pull(self, reference: str) -> Iterator[Progress]:
        """Fetch an image, telling how far it is."""

    def create(self, plan: Plan) -> ContainerId: ...

    def start(self, container: ContainerId) -> None: ...

    def stop(self, container: ContainerId, patience_s: int) -> bool:
        """Whether it ran until now."""

    def remove(self, container: ContainerId, *, force: bool) -> None:
        """Remove it with its anonymous volumes; nothing happens if it is gone."""


class OperationsLogPort(Protocol):
    """The operations log."""

    def append(self, line: LogLine) -> None:
        """One line, one write. Raises `WriteFailed`."""
