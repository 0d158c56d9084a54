"""Serves HTTP on a socket that listens, so that no client can harm the process or shut out others.

The only module that imports waitress. Clients that are slow or too many are disconnected, and what
waitress keeps for them is bounded (decision 52). Knows nothing of what is served.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

PATIENCE_S: Final = 5.0  # for one client, all in all
MAX_CLIENTS: Final = 64
_NO_SOCKETS: Final = (errno.EAFNOSUPPORT, socket.EAI_FAMILY, socket.EAI_ADDRFAMILY)
# It warns when clients queue or leave. That is theirs to know, and any of them can cause it.
logging.getLogger("waitress").setLevel(logging.ERROR)

Application = Callable[[Mapping[str, Any], Callable[..., object]], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""


class BoundedServer(TcpWSGIServer):  # type: ignore[misc] # waitress ships no types
    """waitress with two rules of its own: a client's time is limited, and the newest gets in.

    By itself it counts only a client's silence, so a byte now and then keeps a connection for ever;
    with enough of them it accepts no others; and a client that reads nothing is never disconnected.
    `listener` is a TCP or a Unix socket, bound to its address.
    """

    def __init__(
        self,
        app: Application,
        listener: socket.socket,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        super().__init__(
            app,
            _sock=listener,
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            threads=1,  # no client keeps it: an answer is buffered as a whole
            ident="ds01d",
            backlog=128,
            cleanup_interval=0,  # `maintenance` in each round of the loop, at least once a second
            asyncore_use_poll=True,  # select() fails from file descriptor 1024 on
            log_socket_errors=False,
            max_request_header_size=16 << 10,
            max_request_body_size=1,
            outbuf_overflow=1 << 30,  # no temporary files
            outbuf_high_watermark=1 << 30,
        )

    def getsockname(self) -> tuple[str, object]:
        # The name of a Unix socket is a path, which no getnameinfo() understands.
        if self.family == socket.AF_UNIX:
            return "localhost", 0
        name: tuple[str, object] = super().getsockname()
        return name

    def set_socket_options(self, conn: socket.socket) -> None:
        # waitress sets options of TCP.
        if self.family != socket.AF_UNIX:
            super().set_socket_options(conn)

    def fix_addr(self, addr: object) -> object:
        return ("localhost", None) if self.family == socket.AF_UNIX else addr

    def maintenance(self, now: float) -> None:
        for channel in self.active_channels.values():
            if channel.creation_time <= now - self._patience_s:
                _disconnect(channel)

    def handle_accept(self) -> None:
        # The first to come has had the most time; an answer takes milliseconds.
        clients = [client for client in self.active_channels.values() if not client.will_close]
        if len(clients) >= MAX_CLIENTS:
            _disconnect(clients[0])
        super().handle_accept()

    def request_stop(self) -> None:
        """Have `run` return, from another thread or a signal handler."""
        self.trigger.pull_trigger(self.stop_serving)

    def stop_serving(self) -> None:
        """Have `run` return; in its thread, or before it."""
        for channel in tuple(self.active_channels.values()):
            channel.handle_close()
        # The worker may still write to the trigger's pipe, and must not find another file there.
        self.task_dispatcher.shutdown(timeout=math.inf)
        self.close()


def _disconnect(channel: HTTPChannel) -> None:
    """Have the loop close a connection, in its own time: file descriptors are used again."""
    channel.will_close = True
    # Wakes the loop, which by itself waits until the client has read something.
    with contextlib.suppress(OSError):
        channel.socket.shutdown(socket.SHUT_RDWR)


def bind_address(address: tuple[str, int]) -> socket.socket:
    """A socket bound to a host and a port. Raises OSError, or ValueError for an invalid host."""
    addresses = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, _, _, target = addresses[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
    except OSError:
        listener.close()
        raise
    return listener


def describe_failure(error: OSError | ValueError, drop_in: str) -> str:
    """Why an address cannot be bound; `drop_in`: what permits it where systemd does not."""
    if isinstance(error, OSError) and error.errno in _NO_SOCKETS:
        return f"{error}: the unit allows it with the drop-in {drop_in}"
    return str(error)
