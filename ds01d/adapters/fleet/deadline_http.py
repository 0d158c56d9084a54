"""HTTP and HTTPS with one deadline and one size limit for a whole call, however its bytes arrive.

A connection serves one call: connecting, the TLS handshake, sending and the whole answer count
together. It knows nothing of what is asked. (`adapters.docker` has its own: its engine is a unix
socket, without TLS.)
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A stream whose host has gone ends after 25 s; without it, it would wait for ever."""


@dataclass(slots=True, kw_only=True)
class CallLimits:
    """What a call may take: until `deadline` (monotonic seconds), and so many bytes.

    A stream has `idle_s` instead of the deadline: after each such span without a byte `on_idle` is
    called, which raises what ends the stream.
    """

    deadline: float
    bytes_left: int
    idle_s: float | None = None
    on_idle: Callable[[], None] | None = None

    def find_left_s(self) -> float:
        """How long one step may take. Raises TimeoutError when nothing is left."""
        if self.idle_s is not None:
            return self.idle_s
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        return left_s

    def receive(self, connection: socket.socket, read: Callable[[], int]) -> int:
        """One read within the limits."""
        while True:
            # Before each read: a peer that sends a byte a second would else start the time again
            # with each.
            connection.settimeout(self.find_left_s())
            try:
                received = read()
            except TimeoutError:
                if self.on_idle is None:
                    raise
                self.on_idle()
                continue
            # Counted as it comes: a length that a server announces proves nothing.
            self.bytes_left -= received
            if self.bytes_left < 0:
                raise OverflowError("the answer is too large")
            return received


class LimitedSocket(socket.socket):
    """A plain connection. http.client reads through `recv_into` and sends through `sendall`."""

    limits: CallLimits

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ANN401
        # A lambda has no `super()` of its own.
        read = super().recv_into
        return self.limits.receive(self, lambda: read(buffer, nbytes, flags))

    def sendall(self, data: Any, flags: int = 0) -> None:  # noqa: ANN401
        self.settimeout(self.limits.find_left_s())
        super().sendall(data, flags)


class LimitedTlsSocket(ssl.SSLSocket):
    """The same with TLS."""

    limits: CallLimits

    def recv_into(
        self,
        buffer: Any,  # noqa: ANN401
        nbytes: int | None = None,
        flags: int = 0,
    ) -> int:
        read = super().recv_into
        return self.limits.receive(self, lambda: read(buffer, nbytes, flags))

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401
        # `sendall` of ssl sends piece by piece, each with a time of its own.
        self.settimeout(self.limits.find_left_s())
        return super().send(data, flags)


class LimitedConnection(http.client.HTTPConnection):
    """An HTTP connection over a socket that is open already; `limits` hold from now on."""

    def __init__(self, host: str, port: int, limits: CallLimits) -> None:
        super().__init__(host, port)
        self.limits = limits

    def attach(self, connection: LimitedSocket, tls: ssl.SSLContext | None) -> None:
        """Use this connection, which has a peer already. Raises OSError if TLS fails."""
        connection.limits = self.limits
        for level, option, value in _KEEPALIVE:
            connection.setsockopt(level, option, value)
        # Head and body are sent at once, so there is nothing to wait for.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            self.sock = connection
            return
        # Else the Host header would name a port that is the usual one.
        self.default_port = http.client.HTTPS_PORT
        connection.settimeout(self.limits.find_left_s())
        # The handshake comes apart, so that `close` has the connection before a peer that never
        # finishes it.
        wrapped = tls.wrap_socket(
            connection, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = wrapped  # from here on `close` closes it
        if isinstance(wrapped, LimitedTlsSocket):  # as `make_tls_context` has it
            wrapped.limits = self.limits
        # Since Python 3.5 the timeout of a handshake is for all of it.
        wrapped.settimeout(self.limits.find_left_s())
        wrapped.do_handshake()


def make_tls_context(
    authority: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    """A context for clients that always verifies the server. Arguments are paths of PEM files.

    `authority` None: those that the system trusts. Raises OSError (ssl.SSLError is one) where a
    file cannot be read or is malformed.
    """
    context = ssl.create_default_context(cafile=authority)
    context.sslsocket_class = LimitedTlsSocket
    # Python 3.13 asks for more of an authority (RFC 5280) than openssl's usual commands give it: a
    # lab's own would count on one release of its distribution, and no longer on the next.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate is not None:
        # An encrypted key would ask for its password on the terminal.
        context.load_cert_chain(certificate, key, password=_refuse_password)
    return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted: ds01d needs one without a password")
