"""Runs commands in containers, and reads what containers have written; the streams are sockets.

A command always runs as the user of its container and with its rights. What the bytes of a stream
are is in `ds01d.cli.containers.terminal`.
"""

from __future__ import annotations

import re
import socket

import msgspec

from ds01d.adapters.docker.http_client import HttpClient
from ds01d.errors import EngineRefused, Refused
from ds01d.model.primitives import ContainerId
from ds01d.model.session import (
    LogsOrder,
    SessionId,
    SessionOrder,
    SessionState,
    TerminalSize,
)

# Nothing else may become part of a URL.
_ID = re.compile(r"[0-9a-f]{64}")


class DockerSessions:
    """One engine. One thread may use it; the sockets that it gives are their receivers'."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._client = HttpClient(url, timeout_s)

    def prepare_session(self, container: ContainerId, order: SessionOrder) -> SessionId:
        """Register a command; `start_session` starts it. Raises `EngineFailed`."""
        body = {
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": order.size is not None,
            # Without "User" and "Privileged": as the container itself (decision 198).
            "Cmd": list(order.command),
            "Env": list(order.environment),
        }
        _, answer = self._client.send(
            "POST", f"/containers/{container}/exec", body=msgspec.json.encode(body)
        )
        return SessionId(self._client.decode_answer(answer, _CreatedExec, "createdexec").id)

    def start_session(self, session: SessionId, *, size: TerminalSize | None) -> socket.socket:
        """Start a command: the stream that is its terminal, or its pipes. Raises `EngineFailed`.

        The stream serves nothing but this command, also after its end.
        """
        body = msgspec.json.encode({"Detach": False, "Tty": size is not None})
        # Decision 198: only the connection of an answer of 101 can serve no other request.
        return self._client.open_raw("POST", f"/exec/{session}/start", body=body, upgrade=True)

    def resize_session(self, session: SessionId, size: TerminalSize) -> None:
        """Raises `EngineFailed`, also while the command is not started yet."""
        params = {"h": str(size.rows), "w": str(size.columns)}
        self._client.send("POST", f"/exec/{session}/resize", params)

    def inspect_session(self, session: SessionId) -> SessionState | None:
        """How far a command is; None if Docker has forgotten it. Raises `EngineFailed`."""
        if not _ID.fullmatch(session):
            raise Refused(f"invalid session {session[:80]!a}")
        try:
            answer = self._client.get(f"/exec/{session}/json")
        except EngineRefused as refusal:
            if refusal.is_missing("exec"):
                return None
            raise
        state = self._client.decode_answer(answer, _Exec, "exec")
        return SessionState(
            container=ContainerId(state.container),
            is_running=state.is_running,
            exit_code=state.exit_code,
        )

    def count_sessions(self, container: ContainerId) -> int:
        """How many commands run in a container beside its own. Raises `EngineFailed`."""
        return len(self._inspect_container(container).sessions or ())

    def has_terminal(self, container: ContainerId) -> bool:
        """Whether its output is that of a terminal, without frames. Raises `EngineFailed`."""
        return self._inspect_container(container).config.has_terminal

    def open_logs(self, container: ContainerId, order: LogsOrder) -> socket.socket:
        """The output of a container, up to the end of the stream. Raises `EngineFailed`."""
        params = {
            "stdout": "1",
            "stderr": "1",
            "follow": str(int(order.follow)),
            "tail": "all" if order.tail is None else str(order.tail),
            "timestamps": str(int(order.timestamps)),
        }
        if order.since is not None:
            params["since"] = f"{order.since:.9f}"
        return self._client.open_raw("GET", f"/containers/{container}/logs", params, upgrade=False)

    def close(self) -> None:
        """Break every connection but those that were given away."""
        self._client.close()

    def _inspect_container(self, container: ContainerId) -> _SessionFacts:
        return self._client.decode_answer(
            self._client.inspect(container), _SessionFacts, "sessionfacts"
        )


class _CreatedExec(msgspec.Struct):
    id: str = msgspec.field(name="Id")

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError("Id: expected 64 hexadecimal digits")


class _Exec(msgspec.Struct):
    container: str = msgspec.field(name="ContainerID", default="")
    is_running: bool = msgspec.field(name="Running", default=False)
    exit_code: int | None = msgspec.field(name="ExitCode", default=None)


class _TerminalConfig(msgspec.Struct):
    has_terminal: bool = msgspec.field(name="Tty", default=False)


class _SessionFacts(msgspec.Struct):
    config: _TerminalConfig = msgspec.field(name="Config", default_factory=_TerminalConfig)
    sessions: list[str] | None = msgspec.field(name="ExecIDs", default=None)
