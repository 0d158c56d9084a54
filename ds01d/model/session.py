"""A command that a user runs in a container, and what a container has written. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from ds01d.model.primitives import ContainerId

SessionId = NewType("SessionId", str)
"""Docker's ID of an exec: 64 hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """In characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOrder:
    """The command, with what it gets beside the container's environment ("NAME=value").

    `size` None: it gets pipes, not a terminal.
    """

    command: tuple[str, ...]
    environment: tuple[str, ...] = ()
    size: TerminalSize | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """How far a command is. `exit_code` None: it still runs, or its code is not known.

    `container`: the one that it runs in, where Docker was asked.
    """

    is_running: bool
    exit_code: int | None
    container: ContainerId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsOrder:
    """Which lines of a container's output. `tail` None: all; `since`: seconds since the epoch."""

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
