"""The connections of `HttpClient`, one for each way to read an answer."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPConnection

from ds01d.adapters.docker.deadline_socket import DeadlineSocket


class EngineConnection(HTTPConnection):
    """To an engine, wherever it listens."""

    def __init__(self, open_socket: Callable[[], DeadlineSocket]) -> None:
        super().__init__("localhost")
        self._open_socket = open_socket

    def connect(self) -> None:
        self.sock = self._open_socket()


class RawConnection(EngineConnection):
    """For an answer whose body is read from the socket: nothing is read ahead."""

    def connect(self) -> None:
        connection = self.sock = self._open_socket()
        # What is read ahead with the head of the answer would be missing from the stream.
        connection.reads_ahead = False


class PlainConnection(RawConnection):
    """In HTTP/1.0, where a body has no chunks and ends with its connection."""

    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"
