"""The HTTP listener for Prometheus: `/metrics`, and nothing else, in its own threads.

Decision 52: our own, because that of the Prometheus client waits for a slow client for ever. A port
in use is retried, slow or hostile clients are disconnected, and the number of threads is bounded.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from typing import Any, Final, cast

RETRY_S: Final = 10.0
PATIENCE_S: Final = 5.0  # for one client, all in all; looked at as often
MAX_CLIENTS: Final = 8
MAX_HEAD_BYTES: Final = 16 << 10  # bytes
CACHE_S: Final = 0.5  # who asks more often gets the same again
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_JOIN_S: Final = 1.0
_NO_SOCKETS: Final = (errno.EAFNOSUPPORT, socket.EAI_FAMILY, socket.EAI_ADDRFAMILY)

Render = Callable[[], bytes]
ReportFailure = Callable[[str], None]


class MetricsServer:
    """Listens at `address` until `close`. A client gets an error while `render` gives b"".

    `report_failure` gets the reason while it cannot listen, "" once it can.
    """

    def __init__(
        self,
        address: tuple[str, int],
        render: Render,
        report_failure: ReportFailure,
        *,
        retry_s: float = RETRY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._address, self._render, self._report_failure = address, render, report_failure
        self._retry_s, self._patience_s = retry_s, patience_s
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread = threading.Thread(target=self._run, name="ds01d-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening and disconnect all clients."""
        self._closed.set()
        with self._lock:
            if self._server is not None:
                self._server.stop()
        self._thread.join(_JOIN_S)

    @property
    def port(self) -> int | None:
        """The port it listens on, None while it does not."""
        with self._lock:
            return None if self._server is None else int(self._server.server_address[1])

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                server = _Server(self._address, self._render, self._patience_s, self._closed)
            except (OSError, ValueError) as error:  # ValueError: an invalid host name
                self._report_failure(_describe_failure(error))
                self._closed.wait(self._retry_s)
                continue
            with self._lock:
                self._server = server
            self._report_failure("")
            with server:
                while not self._closed.is_set():
                    server.handle_request()
                    server.disconnect_older(self._patience_s)
                server.disconnect_older(0.0)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread for each client, up to a few; the oldest makes room for the next."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128  # the kernel drops connections beyond it for a second

    def __init__(
        self,
        address: tuple[str, int],
        render: Render,
        patience_s: float,
        closed: threading.Event,
    ) -> None:
        addresses = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = addresses[0][0]
        self._render, self._closed = render, closed
        self.timeout = patience_s
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, float] = {}
        self._body_lock = threading.Lock()
        self._body, self._body_at = b"", -CACHE_S
        super().__init__(addresses[0][4], _Handler)  # type: ignore[arg-type] # IPv6 has four parts

    def render_body(self) -> bytes:
        """The metrics, rendered once for all clients that ask within half a second."""
        with self._body_lock:
            if time.monotonic() - self._body_at >= CACHE_S:
                self._body = self._render()
                self._body_at = time.monotonic()
            return self._body

    def stop(self) -> None:
        """Have `handle_request` return at once, now and ever after."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def disconnect_older(self, patience_s: float) -> None:
        """Disconnect clients that have been connected for longer."""
        latest = time.monotonic() - patience_s
        with self._lock:
            for client, since in self._clients.items():
                if since <= latest:
                    _disconnect(client)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            self._closed.wait(1.0)  # no free file descriptor: a retry at once would be a busy loop
            raise

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as there
        with self._lock:
            if len(self._clients) >= MAX_CLIENTS:
                oldest = next(iter(self._clients))
                del self._clients[oldest]
                _disconnect(oldest)
            self._clients[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as there
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as there
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server_version = "ds01d"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.timeout)
        self.rfile = cast("BufferedIOBase", _BoundedReader(self.rfile))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            body = cast("_Server", self.server).render_body()
            status = HTTPStatus.OK if body else HTTPStatus.INTERNAL_SERVER_ERROR
            self._send_answer(status, CONTENT_TYPE, body)
        elif path == "/":
            self._send_answer(HTTPStatus.OK, "text/plain", b"ds01d: see /metrics\n")
        else:
            self._send_answer(HTTPStatus.NOT_FOUND, "text/plain", b"not here: see /metrics\n")

    do_HEAD = do_GET  # noqa: N815 - as there

    def _send_answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as there
        """Log no scrapes."""


class _BoundedReader:
    """A request of bounded size: beyond `MAX_HEAD_BYTES` it ends."""

    def __init__(self, sent: BufferedIOBase) -> None:
        self._sent, self._left = sent, MAX_HEAD_BYTES
        self.close = sent.close

    def readline(self, size: int) -> bytes:
        line = self._sent.readline(min(size, self._left))
        self._left -= len(line)
        return line


def _describe_failure(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno in _NO_SOCKETS:
        return f"{error}: the unit allows it with the drop-in ds01d-metrics.conf"
    return str(error)


def _disconnect(client: socket.socket) -> None:
    """Shut the connection down, which wakes the thread that serves it."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
