"""Connections to servers that may do anything: one deadline for all of it, however slowly it goes.

A timeout of a socket counts from read to read, and TLS and smtplib make sockets of their own. So a
timer shuts the connection down, which ends whatever waits for it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

MAX_ADDRESSES: Final = 4


@contextmanager
def open_connection(host: str, port: int, timeout_s: float) -> Iterator[socket.socket]:
    """A TCP connection that is shut down after `timeout_s`. Raises OSError.

    The lookup of the name is bounded by the host's resolver (resolv.conf(5): timeout, attempts).
    """
    until = time.monotonic() + timeout_s
    connection = _connect(host, port, until)
    # A descriptor of its own: TLS takes the first one over.
    with connection, connection.dup() as handle:
        # The time-out of a socket is for each step, and a server that sends a byte now and then
        # would take for ever.
        timer = threading.Timer(max(0.0, until - time.monotonic()), _shut_down, (handle,))
        timer.daemon = True
        timer.start()
        try:
            yield connection
        finally:
            timer.cancel()
            timer.join()


def _connect(host: str, port: int, until: float) -> socket.socket:
    last: OSError = OSError(f"no address of {host}")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in addresses[:MAX_ADDRESSES]:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(left_s)
            connection.connect(address)
        except OSError as error:
            connection.close()
            last = error
            continue
        return connection
    raise last


def _shut_down(handle: socket.socket) -> None:
    with suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)
