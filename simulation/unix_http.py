"""An HTTP server on a unix socket, in threads, that closes its connections when it goes.

What it answers is its users' affair: `fake_engine` and `proxy`.
"""

import contextlib
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

_Request = socket.socket | tuple[bytes, socket.socket]
_Owner = TypeVar("_Owner")


class UnixServer(socketserver.ThreadingUnixStreamServer, Generic[_Owner]):
    """Serves `owner` at `path` with a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, owner: _Owner, handler: type["UnixHandler[_Owner]"]) -> None:
        """Listen at once; answer when `run` is called."""
        self.owner = owner
        self._open: set[_Request] = set()
        path.unlink(missing_ok=True)
        super().__init__(str(path), handler)

    def run(self) -> None:
        """Begin to answer, in a thread of its own."""
        serve = self.serve_forever
        threading.Thread(target=serve, args=(0.02,), name="unix server", daemon=True).start()

    def cut(self) -> None:
        """End every connection, and accept new ones."""
        for connection in list(self._open):
            assert isinstance(connection, socket.socket)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """End every connection and accept no more. The socket file stays."""
        self.shutdown()
        self.server_close()
        self.cut()

    def process_request(self, request: _Request, client_address: object) -> None:
        """Remember the connection."""
        self._open.add(request)
        super().process_request(request, str(client_address))

    def shutdown_request(self, request: _Request) -> None:
        """Forget the connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: _Request, client_address: object) -> None:
        """Say nothing of clients that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, str(client_address))


class UnixHandler(BaseHTTPRequestHandler, Generic[_Owner]):
    """Answers one connection. Connections stay open for further requests."""

    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> _Owner:
        """Whom this answers for."""
        assert isinstance(self.server, UnixServer)
        owner: _Owner = self.server.owner
        return owner

    @property
    def plain_path(self) -> str:
        """The path that is asked for, without query and API version."""
        path = urlsplit(self.path).path
        head, _, rest = path[1:].partition("/")
        versioned = head.startswith("v") and head[1:].replace(".", "").isdigit()
        return f"/{rest}" if versioned else path

    def handle_call(self) -> None:
        """Answer one request, of whatever method."""
        raise NotImplementedError

    def _call(self) -> None:
        self.handle_call()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _call  # noqa: N815 - as http.server wants it

    def log_message(self, *_: object) -> None:
        """Keep still."""

    def address_string(self) -> str:
        """A unix socket has no address."""
        return "local"

    def read_body(self) -> bytes:
        """Read what came with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def chunk(self, data: bytes) -> None:
        """Send a piece of a chunked answer."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
