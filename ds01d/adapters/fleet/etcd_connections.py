"""One request to one member of etcd, over a connection of its own.

Any thread may call. It does not choose the member, and repeats nothing.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from ds01d.adapters.fleet.deadline_http import (
    CallLimits,
    LimitedConnection,
    LimitedSocket,
    make_tls_context,
)
from ds01d.adapters.fleet.etcd_errors import (
    MemberFailed,
    ReplyTooLarge,
    describe_error,
    describe_refusal,
    shorten,
)
from ds01d.adapters.fleet.etcd_messages import decode_reply
from ds01d.adapters.fleet.etcd_settings import EtcdEndpoint, TlsFiles
from ds01d.adapters.fleet.name_lookup import NameLookup
from ds01d.errors import Malformed, StoreFailed

T = TypeVar("T")

MAX_REPLY_BYTES: Final = 8 << 20
"""More than one value of any size that etcd takes (1.5 MiB), in base64."""


class EtcdConnections:
    """Connections to the members. `close` breaks them all, from any thread."""

    def __init__(self, tls: TlsFiles) -> None:
        self._files = tls
        self._lookup = NameLookup()
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_closed = False
        self._tls: tuple[object, ssl.SSLContext] | None = None

    def exchange(
        self,
        endpoint: EtcdEndpoint,
        path: str,
        body: bytes,
        form: type[T],
        *,
        deadline: float,
        token: str,
    ) -> T:
        """The answer of this member. Raises MemberFailed, and StoreRefused where etcd refuses."""
        limits = CallLimits(deadline=deadline, bytes_left=MAX_REPLY_BYTES)
        with self._open_connection(endpoint, limits) as connection:
            # What nobody waits for any more is given up there too.
            left_ms = max(1, int(limits.find_left_s() * 1000))
            with _send_request(
                connection, path, body, token, {"Grpc-Timeout": f"{left_ms}m"}
            ) as response:
                answer = response.read()
            if response.status != 200:
                raise describe_refusal(endpoint, response.status, answer)
            return decode_reply(answer, form)

    def find_certificate_end(self, endpoint: EtcdEndpoint, deadline: float) -> float | None:
        """Until when the member's certificate is valid, in seconds since the epoch; None: no TLS.

        Raises MemberFailed.
        """
        limits = CallLimits(deadline=deadline, bytes_left=MAX_REPLY_BYTES)
        with self._open_connection(endpoint, limits) as connection:
            if not isinstance(connection.sock, ssl.SSLSocket):
                return None
            end = (connection.sock.getpeercert() or {}).get("notAfter")
            return ssl.cert_time_to_seconds(end) if isinstance(end, str) else None

    @contextmanager
    def open_stream(
        self, endpoint: EtcdEndpoint, path: str, body: bytes, limits: CallLimits, token: str
    ) -> Iterator[Iterator[bytes]]:
        """The lines of an answer that does not end by itself. Raises as `exchange`."""
        with (
            self._open_connection(endpoint, limits) as connection,
            _send_request(connection, path, body, token, {}) as response,
        ):
            if response.status != 200:
                raise describe_refusal(endpoint, response.status, response.read())
            yield _split_lines(response, limits)

    def close(self) -> None:
        """Break every connection and allow no other: whatever waits for one fails at once."""
        with self._guard:
            self._is_closed = True
            for handle in self._open:
                # Not close(2): a thread that waits in recv wakes up with this, and the number of a
                # descriptor that was closed may be another file's by then.
                with suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _open_connection(
        self, endpoint: EtcdEndpoint, limits: CallLimits
    ) -> Iterator[LimitedConnection]:
        with self._wrap_errors(endpoint):
            tls = self._find_tls() if endpoint.is_tls else None
            plain = self._open_socket(endpoint, limits)
            # A descriptor of its own for `close`: TLS takes the first one over.
            with plain, plain.dup() as handle, self._register_handle(handle):
                connection = LimitedConnection(endpoint.host, endpoint.port, limits)
                try:
                    connection.attach(plain, tls)
                    yield connection
                finally:
                    connection.close()

    @contextmanager
    def _register_handle(self, handle: socket.socket) -> Iterator[None]:
        with self._guard:
            # Under the lock: what is opened while `close` runs would be broken by nothing.
            if self._is_closed:
                raise ConnectionAbortedError("closed")
            self._open.add(handle)
        try:
            yield
        finally:
            with self._guard:
                self._open.discard(handle)

    def _open_socket(self, endpoint: EtcdEndpoint, limits: CallLimits) -> LimitedSocket:
        # A name may have an address of IPv6 that nothing leads to.
        last: OSError = OSError(f"no address of {endpoint.host}")
        addresses = self._lookup.find_addresses(endpoint.host, endpoint.port, limits.deadline)
        for position, (family, address) in enumerate(addresses):
            connection = LimitedSocket(family, socket.SOCK_STREAM)
            try:
                # A share each: one that swallows everything would leave nothing for the next.
                connection.settimeout(limits.find_left_s() / (len(addresses) - position))
                connection.connect(address)
            except OSError as error:
                connection.close()
                last = error
            else:
                return connection
        raise last

    def _find_tls(self) -> ssl.SSLContext:
        """The context, made again when one of its files was replaced: certificates are renewed."""
        files = self._files
        paths = [files.authority, files.certificate, files.key]
        stats = [os.stat(path) for path in paths if path is not None]  # noqa: PTH116 - of a list
        # Inode and size too: a renewal by rename may keep the time that the file had.
        stamp = tuple((status.st_mtime_ns, status.st_ino, status.st_size) for status in stats)
        with self._guard:
            if self._tls is None or self._tls[0] != stamp:
                context = make_tls_context(*(str(path) if path else None for path in paths))
                self._tls = stamp, context
            return self._tls[1]

    @contextmanager
    def _wrap_errors(self, endpoint: EtcdEndpoint) -> Iterator[None]:
        """Turn whatever the libraries raise (hostile answers have many forms) into our own."""
        try:
            yield
        except (MemberFailed, StoreFailed):
            raise
        except Malformed as error:
            raise MemberFailed(f"{endpoint}: {shorten(str(error))}") from error
        except (OverflowError, MemoryError) as error:
            # http.client makes room for all that a server announces.
            raise ReplyTooLarge(f"{endpoint}: {str(error) or 'the answer is too large'}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if self._is_closed:
                raise MemberFailed(f"{endpoint}: closed by ds01d") from error
            raise MemberFailed(f"{endpoint}: {describe_error(error)}") from error


def _send_request(
    connection: LimitedConnection, path: str, body: bytes, token: str, more: dict[str, str]
) -> http.client.HTTPResponse:
    """The head of the answer to a POST; closing it closes the connection."""
    headers = {
        "Content-Type": "application/json",
        # The deadline of a call is that of its connection, so none is used twice.
        "Connection": "close",
        # Else a member without a leader lets a watch wait for ever, and a call for a time-out of
        # its own (etcd 10819).
        "Grpc-Metadata-hasleader": "true",
        **more,
    }
    if token:
        headers["Authorization"] = token
    connection.request("POST", f"/v3{path}", body, headers)
    return connection.getresponse()


def _split_lines(response: http.client.HTTPResponse, limits: CallLimits) -> Iterator[bytes]:
    """The lines of a stream; the size limit holds for each of them."""
    pending = b""
    # `read` would wait until 64 KiB are there, and an event would come that late.
    while chunk := response.read1(64 << 10):
        *lines, pending = (pending + chunk).split(b"\n")
        if lines:
            limits.bytes_left = MAX_REPLY_BYTES
        yield from filter(None, lines)
