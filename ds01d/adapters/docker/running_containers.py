"""Which containers live, asked by the allocator of Docker itself: small, bounded, without the SDK.

A script calls the allocator for every line of its own, so this is one list and an inspect for each
container of whose request nothing is known yet. It speaks HTTP/1.0, whose answer ends where the
connection does, and names no version of the API: the engine answers by its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, AF_UNIX
from urllib.parse import quote, urlsplit

from ds01d.adapters.docker.deadline_socket import DeadlineSocket
from ds01d.adapters.docker.parsing import ContainerRow, read_container, read_rows
from ds01d.errors import Malformed, NoSuchContainer
from ds01d.model.containers import Container, State
from ds01d.model.primitives import Source, Unknown
from ds01d.model.usage import Running

_PATIENCE_S = 3.0
_STATES = '{"status":["created","restarting","running","paused"]}'
_SHORT = 12


class RunningContainers:
    """One engine, asked for what lives. `just_created_s`: how long a created one may take to start.

    All questions of one `read` together take `timeout_s` at most, and never more than 3 s: somebody
    waits for a GPU.
    """

    def __init__(self, url: str, timeout_s: float, just_created_s: float) -> None:
        self._url = url
        self._timeout_s = min(timeout_s, _PATIENCE_S)
        self._just_created_s = just_created_s

    def read(self, known: frozenset[str]) -> Running | Unknown:
        """The living and the just created, inspected unless in `known` (short IDs)."""
        until = time.monotonic() + self._timeout_s
        try:
            rows = [row for row in read_rows(self._list(until)) if self._matters(row)]
        except (OSError, OverflowError, ValueError, Malformed) as error:
            return Unknown(
                source=Source.DOCKER,
                reason=f"cannot reach Docker at {self._url}: {_words(error)}",
                missing=isinstance(error, (FileNotFoundError, ConnectionRefusedError)),
            )
        unknown = [row for row in rows if row.id[:_SHORT] not in known]
        containers, failed = self._inspect(unknown, until)
        return Running(
            names={row.id: row.name for row in rows},
            containers=tuple(containers),
            problem=f"what GPUs they have is not known: {'; '.join(failed)}" if failed else "",
        )

    def _matters(self, row: ContainerRow) -> bool:
        if row.state is State.CREATED:
            return time.time() - row.created < self._just_created_s
        return row.state.alive

    def _list(self, until: float) -> bytes:
        try:
            return self._get(f"/containers/json?all=1&filters={quote(_STATES)}", until)
        except _BadRequestError:  # whatever stands there knows no such filter
            return self._get("/containers/json?all=1", until)

    def _inspect(
        self, rows: Iterable[ContainerRow], until: float
    ) -> tuple[list[Container], list[str]]:
        containers: list[Container] = []
        failed: list[str] = []
        for row in rows:
            found = self._inspect_one(row, until)
            if isinstance(found, Container):
                containers.append(found)
            elif found:
                failed.append(f"{row.name}: {found}")
        return containers, failed

    def _inspect_one(self, row: ContainerRow, until: float) -> Container | str:
        """The container; else why it could not be inspected, "" if it is gone meanwhile."""
        try:
            body = self._get(f"/containers/{row.id}/json", until)
            return read_container(body, default_runtime="")
        except NoSuchContainer:
            return ""
        except (OSError, OverflowError, ValueError, Malformed) as error:
            return _words(error)

    def _get(self, path: str, until: float) -> bytes:
        """The body of an answer. Raises `NoSuchContainer`, OSError, OverflowError, ValueError."""
        family, address = _endpoint(self._url)
        with DeadlineSocket(family, until) as line:
            line.connect(address)
            line.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            answer = bytearray()
            chunk = bytearray(1 << 16)
            while got := line.recv_into(chunk):
                answer += chunk[:got]
        head, found, body = bytes(answer).partition(b"\r\n\r\n")
        status = head.split(b"\r\n", 1)[0].split(b" ")
        if not found or len(status) < 2 or not status[0].startswith(b"HTTP/1."):
            raise ValueError("not an answer in HTTP")
        if b"\r\ntransfer-encoding:" in head.lower():
            raise ValueError("an answer in chunks to HTTP/1.0")
        if status[1] == b"404" and b"no such container" in body.lower():
            raise NoSuchContainer(path)
        if status[1] == b"400":
            raise _BadRequestError("it answered 400")
        if status[1] != b"200":
            raise ValueError(f"it answered {status[1].decode('ascii', 'replace')}")
        return body


class _BadRequestError(ValueError):
    """The engine does not understand a question."""


def _endpoint(url: str) -> tuple[int, str | tuple[str, int]]:
    """The family and the address of a socket. Raises ValueError for what only the SDK can reach."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return AF_UNIX, parts.path
    if parts.scheme in {"tcp", "http"} and parts.hostname:
        family = AF_INET6 if ":" in parts.hostname else AF_INET
        return family, (parts.hostname, parts.port or 2375)
    raise ValueError(f"not asked over {parts.scheme}")


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in str(text)[:200])
