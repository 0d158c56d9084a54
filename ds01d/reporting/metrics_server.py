"""Serves the metrics to Prometheus over HTTP: `/metrics`, and nothing else, in its own threads.

A port in use is retried. What a client may take is bounded by `http_server`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ds01d.reporting.http_server import (
    PATIENCE_S,
    Application,
    BoundedServer,
    bind_address,
    describe_failure,
)

RETRY_S: Final = 10.0
CACHE_S: Final = 0.5  # who asks more often gets the same again
_DROP_IN: Final = "ds01d-metrics.conf"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_JOIN_S: Final = 1.0

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
        self._server: BoundedServer | None = None
        self._thread = threading.Thread(target=self._run, name="ds01d-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening and disconnect all clients."""
        with self._lock:
            self._closed.set()
            if self._server is not None:
                self._server.request_stop()
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
                server = BoundedServer(app, bind_address(self._address), self._patience_s)
            except (OSError, ValueError) as error:  # ValueError: an invalid host name
                self._report_failure(describe_failure(error, _DROP_IN))
                self._closed.wait(self._retry_s)
                continue
            with self._lock:
                self._server = server
                if self._closed.is_set():
                    server.stop_serving()
            self._report_failure("")
            server.run()  # until it is stopped


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
