"""One call to the service and its replies, over a connection; and how that may fail.

Starts fast: nothing but the standard library.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ds01d.errors import Ds01Error, Refused

if TYPE_CHECKING:  # with what it loads it takes a third of a short command
    from pathlib import Path

TIMEOUT_S: Final = 90.0
MAX_MESSAGE_BYTES: Final = 64 << 10
"""Of a call."""
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


def open_connection(path: Path | str) -> socket.socket:
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


def encode_call(method: str, parameters: Mapping[str, object], *, more: bool) -> bytes:
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


def exchange_messages(
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
        # Also where the reply is broken: the call may have been carried out.
        raise make_unanswered(method, str(error)) from error
    # What was not sent whole was not carried out, so it may be repeated.
    if not is_sent:
        raise ServiceUnreachable("ds01d closed the connection before the call")
    raise make_unanswered(method, "the connection was closed")


def make_unanswered(method: str, reason: str) -> ServiceUnanswered:
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
