"""The booking service as its clients see it: one connection, one call, the answer.

Starts fast: nothing but the standard library and the values that an answer becomes.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from ds01d.errors import Ds01Error, Refused

INTERFACE: Final = "io.github.ds01.Booking"
CONTAINERS: Final = "io.github.ds01.Containers"
NOT_ALLOCATED: Final = "NOT_ALLOCATED"  # codes of Refused, beside those of `Refusal`
NO_METADATA: Final = "NO_METADATA"
NOT_POSSIBLE: Final = "NOT_POSSIBLE"
"""An operation that is refused; `detail` is the whole message."""
STOPPING: Final = "ds01d is stopping: the call was not served"
TIMEOUT_S: Final = 90.0
MAX_MESSAGE_BYTES: Final = 64 << 10
"""Of a call."""
_FRESH_S: Final = 5.0
_MAX_REPLY_BYTES: Final = 64 << 20


class ServiceUnreachable(Ds01Error):
    """Nobody listens, so nothing was asked."""


class ServiceUnanswered(Ds01Error):
    """The call was sent, and no answer came: whether it was carried out is not known."""


class ServiceRefused(Ds01Error):
    """The service answered with an error, and nothing was changed."""

    def __init__(self, error: str, parameters: Mapping[str, Any]) -> None:
        super().__init__(_describe_error(error, parameters))
        self.error, self.parameters = error, parameters


def _describe_error(error: str, parameters: Mapping[str, Any]) -> str:
    name = error.rpartition(".")[2]
    texts = {
        "NotYours": "the container belongs to {owner}",
        "NotPermitted": "permission denied: needs {needs}",
        "Refused": "{code} ({detail})",
    }
    if "reason" in parameters:
        return str(parameters["reason"])
    try:
        return texts[name].format(**parameters)
    except (KeyError, IndexError):
        return f"{name} {json.dumps(parameters)}"


class ServiceClient:
    """Calls one interface of the service, each call on a connection of its own.

    `parameters` that are None are left out. Calls raise `ServiceUnreachable`, `ServiceUnanswered`
    or `ServiceRefused`.
    """

    interface = INTERFACE

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connected: tuple[socket.socket, float] | None = None
        self._open: socket.socket | None = None
        self._is_cancelled = False
        self._descriptors: list[int] | None = None  # gets those that come with a reply

    def connect(self) -> None:
        """Connect for the next call, to see whether somebody listens."""
        self._connected = _connect(self._path), time.monotonic()

    def call(
        self, method: str, parameters: Mapping[str, object], *, repeats: int = 0
    ) -> dict[str, Any]:
        """Make one call of our interface; gives the parameters of the reply."""
        return next(self.stream(method, parameters, more=False, repeats=repeats))

    def stream(
        self,
        method: str,
        parameters: Mapping[str, object],
        *,
        more: bool = True,
        repeats: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Make one call; gives the parameters of each reply.

        `repeats`: how often in a row a call without an answer is made again.
        """
        message = _encode_call(f"{self.interface}.{method}", parameters, more=more)
        unanswered = 0
        while True:
            try:
                with self._take_connection() as connection:
                    connection.settimeout(None if more else TIMEOUT_S)
                    for reply in _exchange(connection, method, message, self._descriptors):
                        unanswered = 0
                        yield reply
                    return
            except ServiceRefused as refusal:  # noqa: PERF203 - once for each restart of ds01d
                # It was not served, so it can be made again, of the next ds01d.
                if refusal.parameters.get("reason") != STOPPING:
                    raise
            except ServiceUnanswered:
                unanswered += 1
                if unanswered > repeats or self._is_cancelled:
                    raise

    def call_for_stream(
        self, method: str, parameters: Mapping[str, object]
    ) -> tuple[dict[str, Any], socket.socket]:
        """Make one call; gives the parameters of the reply, and the stream that comes with it."""
        came: list[int] = []
        self._descriptors = came
        try:
            reply = self.call(method, parameters)
            if len(came) != 1:
                raise _make_unanswered(method, "the reply has no descriptor")
            return reply, socket.socket(fileno=came.pop())
        finally:
            self._descriptors = None
            for descriptor in came:
                os.close(descriptor)

    def cancel_wait(self) -> None:
        """End the call that is being made, from any thread: it raises `ServiceUnanswered`."""
        self._is_cancelled = True
        if self._open is not None:
            with suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _take_connection(self) -> Iterator[socket.socket]:
        connected, self._connected = self._connected, None
        # The service closes a connection without a call after a while.
        is_fresh = connected is not None and time.monotonic() - connected[1] < _FRESH_S
        if connected is not None and not is_fresh:
            connected[0].close()
        self._open = connected[0] if connected is not None and is_fresh else _connect(self._path)
        with self._open as connection:
            yield connection


_Client = TypeVar("_Client", bound=ServiceClient)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # With a time limit of Python's, connecting fails at once where the backlog is full.
    limit = struct.pack("ll", int(TIMEOUT_S), 0)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise ServiceUnreachable(
            f"cannot reach ds01d at {path}: {error.strerror or error} (is ds01d running?)"
        ) from error
    return connection


def _encode_call(method: str, parameters: Mapping[str, object], *, more: bool) -> bytes:
    """A call as one message. Raises `Refused` for one that the service would not read."""
    given = {key: value for key, value in parameters.items() if value is not None}
    call: dict[str, object] = {"method": method, "parameters": given}
    if more:
        call["more"] = True
    message = json.dumps(call).encode() + b"\0"
    if len(message) > MAX_MESSAGE_BYTES:
        raise Refused(
            f"{method} has {len(message)} bytes of arguments: expected {MAX_MESSAGE_BYTES} at most"
        )
    return message


def _exchange(
    connection: socket.socket, method: str, call: bytes, descriptors: list[int] | None
) -> Iterator[dict[str, Any]]:
    """Send a call and give each reply."""
    is_sent = False
    try:
        # A peer that has closed may have written why, before it could read this.
        with suppress(BrokenPipeError):
            connection.sendall(call)
            is_sent = True
        for message in _read_messages(connection, descriptors):
            reply = json.loads(message)
            if "error" in reply:
                raise ServiceRefused(reply["error"], reply.get("parameters") or {})
            yield reply.get("parameters") or {}
            if not reply.get("continues"):
                return
    except (OSError, ValueError) as error:
        raise _make_unanswered(method, str(error)) from error
    if not is_sent:
        raise ServiceUnreachable("ds01d closed the connection before the call")
    raise _make_unanswered(method, "the connection was closed")


def _make_unanswered(method: str, reason: str) -> ServiceUnanswered:
    return ServiceUnanswered(
        f"no answer of ds01d to {method}: {reason}; whether it was carried out is not known: "
        "look at ds01ctl status, and repeat it"
    )


def _read_messages(connection: socket.socket, descriptors: list[int] | None) -> Iterator[bytes]:
    buffer = bytearray()
    while True:
        end = buffer.find(b"\0")
        if end >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
            continue
        if descriptors is None:
            data = connection.recv(1 << 16)
        else:
            data, came, _, _ = socket.recv_fds(connection, 1 << 16, 1, socket.MSG_CMSG_CLOEXEC)
            descriptors += came
        if not data or len(buffer) > _MAX_REPLY_BYTES:
            return
        buffer += data


def find_service(path: Path | None, kind: Callable[[Path], _Client]) -> _Client | None:
    """A client of the service that listens at `path`; None where nobody does.

    Raises `ServiceUnreachable` where that cannot be tried.
    """
    if path is None:
        return None
    client = kind(path)
    try:
        client.connect()
    except ServiceUnreachable as error:
        if isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
            return None
        raise
    return client
