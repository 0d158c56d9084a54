"""Notices for tests, hostile ones too, and servers that misbehave."""

from __future__ import annotations

import os
import pwd
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ds01d.model.notice import SpooledNotice

LOGIN: Final = pwd.getpwuid(os.getuid()).pw_name
"""A user of this host: whoever runs the tests."""
AT: Final = 1_784_000_000.0
HOSTILE: Final = (
    "\x1b]0;owned\x07\x1b[2J",
    "\x9b2J",
    "a\r\nBcc: victim@example.org\r\n\r\nbody",
    "<!channel> <https://evil.example|click>",
    "[click](https://evil.example)",
    "$(touch /tmp/owned); `id` | sh",
    "--help -oQ/tmp",
    "\u202egnp.exe",
    "half \ud800 a character",
    "nul \0 byte",
    "x" * 100_000,
)


def notice(**changes: Any) -> SpooledNotice:
    values: dict[str, Any] = {
        "id": "6a55c400-0011223344556677",
        "at": AT,
        "kind": "gpu_hold_ending",
        "user": LOGIN,
        "container": "train._.1001",
        "slots": ("1.0",),
        "message": "container train._.1001 is stopped and holds GPU 1.0 until 14:30",
    }
    return SpooledNotice(**{**values, **changes})


@dataclass
class Server:
    """A TCP server on loopback; `requests`: what each connection has sent so far."""

    port: int
    requests: list[bytes] = field(default_factory=list)


def read_request(connection: socket.socket) -> bytes:
    """One HTTP request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line[16:]) for line in lines if line.startswith(b"content-length: ")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(answer: Callable[[socket.socket, Server], None]) -> Iterator[Server]:
    """A server that treats each connection with `answer`, until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1])

    def treat(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection, server)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(20.0)
            threading.Thread(target=treat, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def answering(status: str, body: bytes = b"", *headers: str) -> Callable[..., None]:
    """What answers each request so."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])

    def answer(connection: socket.socket, server: Server) -> None:
        server.requests.append(read_request(connection))
        connection.sendall(head.encode() + body)

    return answer
