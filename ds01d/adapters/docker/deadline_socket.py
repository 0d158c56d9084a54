"""A socket with one deadline and one size limit for a whole call, however its bytes arrive.

It knows nothing of HTTP or Docker. The timeout of a plain socket counts from read to read, so a
server that sends a byte now and then would be waited for without end.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

# 10,000 containers with long labels take about 30 MB.
MAX_ANSWER_BYTES = 64 * 2**20

_CREDENTIALS = struct.Struct("3i")


class DeadlineSocket(socket.socket):
    """A connection that fails at `deadline` (monotonic seconds), or after `MAX_ANSWER_BYTES`."""

    def __init__(self, family: int, deadline: float) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.bytes_left = MAX_ANSWER_BYTES
        self.reads_ahead = True
        """A reader may take more than it was asked for into its buffer."""
        self._deadline = deadline
        self._idle_s: float | None = None
        self._on_idle: Callable[[], None] | None = None
        self.settimeout(self._next_timeout_s())

    def remove_deadline(self, idle_s: float, on_idle: Callable[[], None]) -> None:
        """From now on wait without end, calling `on_idle` after each `idle_s` without a byte."""
        self._idle_s, self._on_idle = idle_s, on_idle

    def read_peer_pid(self) -> int | None:
        """The pid of the process that listens; None for a family other than unix sockets.

        0 where it is in a PID namespace whose processes cannot be seen from here (unix(7)).
        """
        if self.family != socket.AF_UNIX:
            return None
        credentials = self.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid: int = _CREDENTIALS.unpack(credentials)[0]
        return pid

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ANN401
        """Read within the limits. http.client reads through this method alone."""
        if not self.reads_ahead:
            nbytes = 1
        while True:
            self.settimeout(self._next_timeout_s())
            try:
                received = super().recv_into(buffer, nbytes, flags)
            except TimeoutError:
                if self._on_idle is None:
                    raise
                self._on_idle()
                continue
            self.bytes_left -= received
            if self.bytes_left < 0:
                raise OverflowError(f"answer larger than {MAX_ANSWER_BYTES} bytes")
            return received

    def _next_timeout_s(self) -> float:
        if self._idle_s is not None:
            return self._idle_s
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("deadline exceeded")
        return left_s
