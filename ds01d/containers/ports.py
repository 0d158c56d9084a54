"""Protocols of what the container commands use. Nothing here imports an adapter."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Protocol

from ds01d.model.confinement import Confinement
from ds01d.model.containers import Container
from ds01d.model.creation import Plan, Progress
from ds01d.model.primitives import ContainerId
from ds01d.model.session import (
    LogsOrder,
    SessionId,
    SessionOrder,
    SessionState,
    TerminalSize,
)


class ContainerEngine(Protocol):
    """Changes in Docker. Every call has a timeout.

    Whatever fails raises `EngineFailed`. After an `EngineRefused` nothing was changed; after any
    other the change may have been made, or may still be.
    """

    @property
    def instance(self) -> str:
        """The dockerd process that gave the last answer; "" if unknown."""

    def find_container(self, reference: str) -> Container | None:
        """Inspect by name or ID. None only if Docker itself answers 404."""

    def read_binds(self, reference: str) -> tuple[str, ...]:
        """The folders of the host that a container mounts, as "/host:/inside[:options]"."""

    def find_excess(self, reference: str, confinement: Confinement) -> tuple[str, ...]:
        """What a container has beyond what `confinement` lets it have, as Docker calls it."""

    def remaps_users(self) -> bool:
        """The engine maps root in its containers to another user."""

    def has_image(self, reference: str) -> bool: ...

    def pull_image(self, reference: str) -> Iterator[Progress]:
        """Pull an image, yielding its progress."""

    def cancel_pull(self) -> None:
        """Abort a pull in progress, and every later one. For any thread."""

    def create_container(self, plan: Plan) -> tuple[ContainerId, list[str]]:
        """Its ID, and what Docker warns of."""

    def start_container(self, container: ContainerId) -> None: ...

    def stop_container(self, container: ContainerId, kill_after_s: int) -> bool:
        """False if it was stopped already."""

    def remove_container(self, container: ContainerId, *, force: bool) -> None:
        """Remove it with its anonymous volumes; no change if it does not exist."""


class SessionEngine(Protocol):
    """Commands in containers, and what containers have written. Whatever fails: `EngineFailed`."""

    def prepare_session(self, container: ContainerId, order: SessionOrder) -> SessionId:
        """Register a command, which runs as the container's own user."""

    def start_session(self, session: SessionId, *, size: TerminalSize | None) -> socket.socket:
        """Start it: a stream that serves nothing but this command."""

    def resize_session(self, session: SessionId, size: TerminalSize) -> None: ...

    def inspect_session(self, session: SessionId) -> SessionState | None:
        """How far it is; None if Docker has forgotten it."""

    def count_sessions(self, container: ContainerId) -> int:
        """How many commands run in a container beside its own."""

    def has_terminal(self, container: ContainerId) -> bool:
        """Whether its output is that of a terminal, and so without frames."""

    def open_logs(self, container: ContainerId, order: LogsOrder) -> socket.socket: ...
