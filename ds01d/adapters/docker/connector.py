"""Opens connections to one engine, identifies its process, and can abort all of them."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ds01d import config_text
from ds01d.adapters.docker.deadline_socket import DeadlineSocket
from ds01d.adapters.host.process_entry import read_file
from ds01d.errors import ConfigError

_PID_FILE = Path("/run/docker.pid")
_PROC = Path("/proc")


class Connector:
    """One thread at a time may connect; `abort_all` and `close` are for any thread."""

    def __init__(self, url: str) -> None:
        try:
            self._endpoint = config_text.engine_endpoint(url)
        except ValueError as error:
            raise ConfigError(f"docker.url: {error}") from error
        self.is_closed = False
        self._peer_pid: int | None = None
        self._guard = threading.Lock()
        self._sockets: weakref.WeakSet[DeadlineSocket] = weakref.WeakSet()

    @property
    def is_peer_hidden(self) -> bool:
        """The engine is in a PID namespace whose processes cannot be seen from here."""
        return self._peer_pid == 0  # decision 152: by SO_PEERCRED

    def identify_process(self) -> str:
        """The process that took the last connection, as "pid:start time"; "" if it is not known.

        It is not known over TCP, and for a process that /proc does not show.
        """
        with suppress(OSError, ValueError, IndexError):
            # The pid at the other end of a Unix socket cannot be forged (unix(7), SO_PEERCRED).
            pid = self._peer_pid
            if pid == 1:  # systemd listens for dockerd, as Docker's packages have it
                pid = int(_PID_FILE.read_text(encoding="ascii"))
            if pid is not None and pid > 1:
                stat = read_file(_PROC, pid, "stat")
                # With the start time, because a pid is used again.
                return f"{pid}:{stat.rpartition(b')')[2].split()[19].decode()}"
        return ""

    def connect(self, deadline: float) -> DeadlineSocket:
        """A connection to the first of the engine's addresses that accepts one."""
        *others, last = _resolve_addresses(self._endpoint)
        for family, address in others:
            with suppress(OSError):
                return self._connect_address(family, address, deadline)
        return self._connect_address(*last, deadline)

    def abort_all(self) -> None:
        """Break every connection: whatever waits for one fails at once."""
        with self._guard:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break every connection and allow no other."""
        self.is_closed = True
        self.abort_all()

    def _connect_address(
        self,
        family: int,
        address: Any,  # noqa: ANN401 - its type depends on the family
        deadline: float,
    ) -> DeadlineSocket:
        connection = DeadlineSocket(family, deadline)
        with self._guard:
            # Under the lock: `close` must not miss a connection that is being made.
            if self.is_closed:
                connection.close()
                raise ConnectionAbortedError("closed")
            self._sockets.add(connection)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        # After the connect: before it there is nobody at the other end.
        self._peer_pid = connection.read_peer_pid()
        return connection


def _resolve_addresses(endpoint: config_text.Endpoint) -> Iterator[tuple[int, Any]]:
    """Family and address of each way to the engine: one socket, or all that a host name has."""
    if endpoint.path:
        yield socket.AF_UNIX, endpoint.path
        return
    for info in socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM):
        yield info[0], info[4]
