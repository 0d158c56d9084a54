"""The service as its clients see it: one connection, one call, the answer."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ds01d.service.exchange import (
    TIMEOUT_S,
    ServiceRefused,
    ServiceUnanswered,
    ServiceUnreachable,
    encode_call,
    exchange_messages,
    make_unanswered,
    open_connection,
)

if TYPE_CHECKING:  # see `exchange`
    from pathlib import Path

INTERFACE: Final = "io.github.ds01.Booking"
CONTAINERS: Final = "io.github.ds01.Containers"
NOT_ALLOCATED: Final = "NOT_ALLOCATED"  # codes of Refused, beside those of `Refusal`
NO_METADATA: Final = "NO_METADATA"
NOT_POSSIBLE: Final = "NOT_POSSIBLE"
"""An operation that is refused; `detail` is the whole message."""
MOST_BOOKINGS: Final = 1000
"""In one reply of `Report`; the next call goes on from there."""
STOPPING: Final = "ds01d is stopping: the call was not served"
_FRESH_S: Final = 5.0


class ServiceClient:
    """Calls one interface of the service, each call on a connection of its own.

    `parameters` that are None are left out. Calls raise `ServiceUnreachable`, `ServiceUnanswered`
    or `ServiceRefused`.
    """

    interface = INTERFACE

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._connected: tuple[socket.socket, float] | None = None
        self._open: socket.socket | None = None
        self._is_cancelled = False
        self._descriptors: list[int] | None = None  # gets those that come with a reply

    def connect(self) -> None:
        """Connect for the next call, to see whether somebody listens."""
        self._connected = open_connection(self._path), time.monotonic()

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
        message = encode_call(f"{self.interface}.{method}", parameters, more=more)
        unanswered = 0
        while True:
            try:
                with self._take_connection() as connection:
                    connection.settimeout(None if more else TIMEOUT_S)
                    for reply in exchange_messages(connection, method, message, self._descriptors):
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
                raise make_unanswered(method, "the reply has no descriptor")
            return reply, socket.socket(fileno=came.pop())
        finally:
            self._descriptors = None
            # Left over where the call failed: nobody else would ever close them.
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
        self._open = (
            connected[0] if connected is not None and is_fresh else open_connection(self._path)
        )
        with self._open as connection:
            yield connection


_Client = TypeVar("_Client", bound=ServiceClient)
_Path = TypeVar("_Path", "Path", str)


def find_service(path: _Path | None, kind: Callable[[_Path], _Client]) -> _Client | None:
    """A client of the service that listens at `path`; None where nobody does.

    Raises `ServiceUnreachable` where that cannot be tried.
    """
    if path is None:
        return None
    client = kind(path)
    try:
        client.connect()
    except ServiceUnreachable as error:
        # Anything else, like a missing permission, does not mean that no ds01d is there.
        if isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
            return None
        raise
    return client
