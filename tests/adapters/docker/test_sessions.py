"""What is done with the answer to a command that is started, before its stream is handed out."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ds01d.adapters.docker.sessions import DockerSessions
from ds01d.errors import EngineFailed, EngineRefused, Refused
from ds01d.model.session import SessionId

SESSION = SessionId("a" * 64)
VERSION = b'{"ApiVersion":"1.41","MinAPIVersion":"1.12"}'
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


@contextmanager
def engine(answer: bytes) -> Iterator[str]:
    """An engine that tells its version, and answers everything else so, in one piece."""
    with (
        tempfile.TemporaryDirectory(prefix="e-") as folder,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        path = Path(folder) / "docker.sock"
        listening.bind(str(path))
        listening.listen(8)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        request = connection.recv(65536)
                        while request.startswith(b"POST") and not request.endswith(b"}"):
                            request += connection.recv(65536)
                        if b"GET /version" in request:
                            length = f"Content-Length: {len(VERSION)}\r\n\r\n".encode()
                            connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + VERSION)
                        else:
                            connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"unix://{path}"
        listening.shutdown(socket.SHUT_RDWR)


def test_what_comes_with_the_head_belongs_to_the_stream() -> None:
    with engine(UPGRADED + b"first words") as url:
        stream = DockerSessions(url, 5).start_session(SESSION, size=None)
        with stream:
            stream.settimeout(60)
            assert stream.recv(100) == b"first words"


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"404 Not Found", b"500 No"])
def test_a_connection_that_can_serve_more_is_not_handed_out(status: bytes) -> None:
    with (
        engine(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as url,
        pytest.raises(EngineRefused),
    ):
        DockerSessions(url, 5).start_session(SESSION, size=None)


def test_an_engine_that_hangs_up() -> None:
    with engine(b"") as url, pytest.raises(EngineFailed):
        DockerSessions(url, 5).start_session(SESSION, size=None)


def test_no_id_becomes_another_path() -> None:
    with engine(b"") as url:
        for wrong in ("", "../x", "A" * 64, "a" * 65, "a" * 63 + "\n"):
            with pytest.raises(Refused, match="invalid session"):
                DockerSessions(url, 5).inspect_session(SessionId(wrong))
