"""Plain connections to unix sockets, for what the docker SDK would hide."""

import http.client
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: as many bytes as were announced, or fewer."""

    status: int
    announced: int
    body: bytes


def call(path: Path, target: str) -> Answer:
    """Ask for a target, and take what comes until the connection or the answer ends."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", target)
        with connection.getresponse() as response:
            announced = int(response.getheader("Content-Length") or 0)
            try:
                body = response.read()
            except http.client.IncompleteRead as broken:
                body = broken.partial
            return Answer(status=response.status, announced=announced, body=body)
    finally:
        connection.close()


def accepts(path: Path) -> bool:
    """Tell whether somebody listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0
