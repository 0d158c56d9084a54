"""A socket that keeps its promise over a whole call: so many seconds, so many bytes, then it fails.

It knows nothing of HTTP or Docker. The timeout of an ordinary socket counts from read to read, so
that a server which drips a byte now and then would be waited for without end.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

# 10,000 containers with long labels take about 30 MB.
MOST_BYTES = 64 * 2**20

_CREDENTIALS = struct.Struct("3i")


class DeadlineSocket(socket.socket):
    """A connection that fails at `until`, or after `MOST_BYTES`, however its bytes come in."""

    def __init__(self, family: int, until: float) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.left = MOST_BYTES
        self._until = until
        self._idle_s: float | None = None
        self._when_idle: Callable[[], None] | None = None
        self.settimeout(self._patience())

    def follow(self, idle_s: float, when_idle: Callable[[], None]) -> None:
        """From now on wait for ever, with a look at the engine after each `idle_s` of silence."""
        self._idle_s, self._when_idle = idle_s, when_idle

    def peer(self) -> int | None:
        """The pid of the process that listens; None where there is none on this host.

        0 where it is in a PID namespace whose processes cannot be seen from here (unix(7)).
        """
        if self.family != socket.AF_UNIX:
            return None
        told = self.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid: int = _CREDENTIALS.unpack(told)[0]
        return pid

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ANN401
        """Read, within what is left of time and size. http.client reads through this alone."""
        while True:
            self.settimeout(self._patience())
            try:
                got = super().recv_into(buffer, nbytes, flags)
            except TimeoutError:
                if self._when_idle is None:
                    raise
                self._when_idle()
                continue
            self.left -= got
            if self.left < 0:
                raise OverflowError(f"an answer of more than {MOST_BYTES} bytes")
            return got

    def _patience(self) -> float:
        if self._idle_s is not None:
            return self._idle_s
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left
