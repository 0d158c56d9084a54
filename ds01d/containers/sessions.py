"""Runs commands in the containers of one caller, and reads what those containers have written."""

from __future__ import annotations

import base64
import itertools
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from ds01d.containers.ports import ContainerEngine, SessionEngine
from ds01d.decide.short_names import split_name
from ds01d.errors import Ds01Error, Refused
from ds01d.model.containers import Container, State
from ds01d.model.primitives import ContainerName
from ds01d.model.session import LogsOrder, SessionId, SessionOrder, SessionState, TerminalSize
from ds01d.service.client import CONTAINERS, ServiceClient
from ds01d.service.exchange import ServiceUnanswered

SHELL: Final = ("sh", "-c", "if command -v bash >/dev/null; then exec bash; else exec sh; fi")
"""What runs where no command is given: bash, where the image has it."""

# Each costs Docker's daemon memory, and a shell whose terminal was closed stays (decision 199).
MAX_SESSIONS: Final = 64
_MAX_BYTES: Final = 32 << 10
_MAX_WORDS: Final = 256
_MAX_CHARACTERS: Final = 500
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\0]*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A command that was started, and its stream."""

    name: ContainerName
    session: SessionId
    stream: socket.socket


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOutput:
    """What a container has written, in parts; with frames it is stdout and stderr."""

    parts: Iterator[bytes]
    has_frames: bool


class Sessions(Protocol):
    """For one caller. A name is a short one of theirs, or the one in Docker.

    All raise `Ds01Error`.
    """

    def enter_container(self, text: str, order: SessionOrder) -> Entered:
        """Start a command in a container that runs."""

    def resize_session(self, name: str, session: SessionId, size: TerminalSize) -> None:
        """Give a command another size; fails also while it is not started yet."""

    def inspect_session(self, name: str, session: SessionId) -> SessionState:
        """How far a command is."""

    def read_logs(self, name: str, order: LogsOrder) -> ContainerOutput: ...


class RemoteSessions(ServiceClient):
    """By the calls of ds01d, for those who cannot reach Docker."""

    interface = CONTAINERS

    def enter_container(self, text: str, order: SessionOrder) -> Entered:
        size = order.size
        parameters = {
            "name": text,
            "command": list(order.command),
            "environment": list(order.environment),
            "rows": None if size is None else size.rows,
            "columns": None if size is None else size.columns,
        }
        reply, stream = self.call_for_stream("Enter", parameters)
        return Entered(
            name=ContainerName(reply["name"]), session=SessionId(reply["session"]), stream=stream
        )

    def resize_session(self, name: str, session: SessionId, size: TerminalSize) -> None:
        place = {"name": name, "session": session}
        self.call("Resize", {**place, "rows": size.rows, "columns": size.columns})

    def inspect_session(self, name: str, session: SessionId) -> SessionState:
        reply = self.call("InspectSession", {"name": name, "session": session}, repeats=1)
        return SessionState(is_running=reply["is_running"], exit_code=reply["exit_code"])

    def read_logs(self, name: str, order: LogsOrder) -> ContainerOutput:
        replies = self.stream("Logs", {"name": name, **asdict(order)})
        first = next(replies)
        parts = _decode_parts(itertools.chain([first], replies))
        return ContainerOutput(parts=parts, has_frames=first["has_frames"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSessions:
    """By Docker. `resolve`: the name in Docker of what the caller calls so.

    `check_owner` raises for a container that the caller may not enter.
    """

    engine: ContainerEngine
    sessions: SessionEngine
    resolve: Callable[[str], ContainerName]
    check_owner: Callable[[Container], None]

    def enter_container(self, text: str, order: SessionOrder) -> Entered:
        check_order(order)
        container = self._find_own(text)
        name = container.name
        if container.state is not State.RUNNING:
            fix = f"container-start {split_name(name)[0]} first"
            if container.state is State.PAUSED:
                fix = f"docker unpause {name}"
            raise Refused(f"{name} is not running ({container.state}): {fix}")
        # Two at once may both pass: it bounds memory, and is not a quota.
        if self.sessions.count_sessions(container.id) >= MAX_SESSIONS:
            raise Refused(f"{MAX_SESSIONS} commands run in {name} already: end one, or stop it")
        session = self.sessions.prepare_session(container.id, order)
        stream = self.sessions.start_session(session, size=order.size)
        return Entered(name=name, session=session, stream=stream)

    def resize_session(self, name: str, session: SessionId, size: TerminalSize) -> None:
        if not (0 < size.rows <= _MAX_CHARACTERS and 0 < size.columns <= _MAX_CHARACTERS):
            raise Refused(f"invalid size: expected 1 to {_MAX_CHARACTERS} rows and columns")
        # First whose it is: Docker resizes whatever exec has the ID.
        self.inspect_session(name, session)
        self.sessions.resize_session(session, size)

    def inspect_session(self, name: str, session: SessionId) -> SessionState:
        container = self._find_own(name)
        state = self.sessions.inspect_session(session)
        # The ID of a session is no secret, so it proves nothing.
        if state is None or state.container != container.id:
            raise Refused(f"no such command in {name}")
        return state

    def read_logs(self, name: str, order: LogsOrder) -> ContainerOutput:
        stream, has_frames = self.open_logs(name, order)
        # A container that is followed may write nothing for days.
        stream.settimeout(None)
        return ContainerOutput(parts=iter(lambda: stream.recv(1 << 16), b""), has_frames=has_frames)

    def open_logs(self, name: str, order: LogsOrder) -> tuple[socket.socket, bool]:
        """What a container has written, as a stream, which the caller closes; if it has frames."""
        container = self._find_own(name)
        has_frames = not self.sessions.has_terminal(container.id)
        return self.sessions.open_logs(container.id, order), has_frames

    def _find_own(self, text: str) -> Container:
        name = self.resolve(text)
        container = self.engine.find_container(name)
        if container is None:
            raise Refused(f'no container "{name}"')
        self.check_owner(container)
        return container


def _decode_parts(replies: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    try:
        for reply in replies:
            yield base64.b64decode(reply["data"])
    except ServiceUnanswered as error:
        raise Ds01Error("the output is cut off: ds01d was stopped; repeat the command") from error


def check_order(order: SessionOrder) -> None:
    """Raise `Refused` for a command that Docker would not take as it is, or that is too large."""
    words = (*order.command, *order.environment)
    if not order.command or not order.command[0]:
        raise Refused("invalid command: it is empty")
    if len(words) > _MAX_WORDS or sum(len(word.encode()) for word in words) > _MAX_BYTES:
        raise Refused(
            f"the command is too long: at most {_MAX_WORDS} words and {_MAX_BYTES} bytes,"
            " its environment included"
        )
    if any("\0" in word for word in order.command):
        raise Refused("invalid command: it has a NUL character")
    for assignment in order.environment:
        if not _ASSIGNMENT.fullmatch(assignment):
            raise Refused(f"invalid environment {assignment[:80]!a}: expected NAME=VALUE")
