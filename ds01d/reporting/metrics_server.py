"""Serves the metrics to Prometheus over HTTP: `/metrics`, and nothing else, in its own threads.

The only module that imports waitress. A port in use is retried; clients that are slow or too many
are disconnected, and what waitress keeps for them is bounded (decision 52).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

RETRY_S: Final = 10.0
PATIENCE_S: Final = 5.0  # for one client, all in all
MAX_CLIENTS: Final = 64
CACHE_S: Final = 0.5  # who asks more often gets the same again
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_JOIN_S: Final = 1.0
_NO_SOCKETS: Final = (errno.EAFNOSUPPORT, socket.EAI_FAMILY, socket.EAI_ADDRFAMILY)
# It warns when clients queue or leave. That is theirs to know, and any of them can cause it.
logging.getLogger("waitress").setLevel(logging.ERROR)

Render = Callable[[], bytes]
ReportFailure = Callable[[str], None]
Application = Callable[[Mapping[str, Any], Callable[..., object]], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""


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
        with self._lock:
            self._closed.set()
            if self._server is not None:
                self._server.trigger.pull_trigger(self._server.stop_serving)
        self._thread.join(_JOIN_S)

    @property
    def port(self) -> int | None:
        """The port it listens on, None while it does not."""
        with self._lock:
            return None if self._server is None else int(self._server.effective_port)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                app = _create_app(self._render)
                server = _Server(app, _bind(self._address), self._patience_s)
            except (OSError, ValueError) as error:  # ValueError: an invalid host name
                self._report_failure(_describe_failure(error))
                self._closed.wait(self._retry_s)
                continue
            with self._lock:
                self._server = server
                if self._closed.is_set():
                    server.stop_serving()
            self._report_failure("")
            server.run()  # until it is stopped


class _Server(TcpWSGIServer):  # type: ignore[misc] # waitress ships no types
    """waitress with two rules of its own: a client's time is limited, and the newest gets in.

    By itself it counts only a client's silence, so a byte now and then keeps a connection for ever;
    with enough of them it accepts no others; and a client that reads nothing is never disconnected.
    """

    def __init__(self, app: Application, listener: socket.socket, patience_s: float) -> None:
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

    def maintenance(self, now: float) -> None:
        for channel in self.active_channels.values():
            if channel.creation_time <= now - self._patience_s:
                _disconnect(channel)

    def handle_accept(self) -> None:
        # The first to come has had the most time; a scrape takes milliseconds.
        clients = [client for client in self.active_channels.values() if not client.will_close]
        if len(clients) >= MAX_CLIENTS:
            _disconnect(clients[0])
        super().handle_accept()

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


def _create_app(render: Render) -> Application:
    """The application. One thread calls it, so what it caches needs no lock."""
    body, rendered_at = b"", -math.inf

    def serve_metrics(
        environ: Mapping[str, Any], start_response: Callable[..., object]
    ) -> Iterator[bytes]:
        nonlocal body, rendered_at
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        status, text = "404 Not Found", b"not here: see /metrics\n"
        if method not in ("GET", "HEAD"):
            status, text = "501 Not Implemented", b""
        elif path == "/":
            status, text = "200 OK", b"ds01d: see /metrics\n"
        elif path == "/metrics":
            if time.monotonic() - rendered_at >= CACHE_S:
                body, rendered_at = render(), time.monotonic()
            status, text = "200 OK" if body else "500 Internal Server Error", body
        start_response(status, [("Content-Type", _TEXT)])
        # Without a length waitress closes the connection after it: nobody makes it answer twice.
        return iter((b"" if method == "HEAD" else text,))

    return serve_metrics


def _bind(address: tuple[str, int]) -> socket.socket:
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


def _describe_failure(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno in _NO_SOCKETS:
        return f"{error}: the unit allows it with the drop-in ds01d-metrics.conf"
    return str(error)
