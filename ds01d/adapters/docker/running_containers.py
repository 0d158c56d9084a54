"""The running containers, as the allocator asks Docker for them: few calls, and a short timeout.

Scripts call the allocator often, so this is one list, and an inspect for each
container whose request is not known from the published status. It speaks HTTP/1.0, whose answer
ends with the connection, and names no version of the API: the engine answers by its newest.
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
from ds01d.text import make_printable

_MAX_TIMEOUT_S = 3.0
_STATES = '{"status":["created","restarting","running","paused"]}'
_SHORT_ID_LENGTH = 12


class RunningContainers:
    """One engine. `just_created_s`: how long a created container may take to start.

    All calls of one `read` together take `timeout_s` at most, and never more than 3 s: a user waits
    for a GPU.
    """

    def __init__(self, url: str, timeout_s: float, just_created_s: float) -> None:
        self._url = url
        self._timeout_s = min(timeout_s, _MAX_TIMEOUT_S)
        self._just_created_s = just_created_s

    def read(self, skip_ids: frozenset[str]) -> Running | Unknown:
        """Those that run or were just created, inspected unless in `skip_ids` (short IDs)."""
        # One deadline for all calls: a script's user waits for the sum of them.
        deadline = time.monotonic() + self._timeout_s
        try:
            rows = [row for row in self._list_rows(deadline) if self._is_relevant(row)]
        except (OSError, OverflowError, ValueError, Malformed) as error:
            return Unknown(
                source=Source.DOCKER,
                reason=f"cannot reach Docker at {self._url}: {_describe_error(error)}",
                missing=isinstance(error, (FileNotFoundError, ConnectionRefusedError)),
            )
        # An inspect costs a millisecond each, and ds01d has published what most of them have.
        unpublished = [row for row in rows if row.id[:_SHORT_ID_LENGTH] not in skip_ids]
        # What fails is named, not left out: a slot that looks free would be handed out.
        containers, failed = self._inspect_all(unpublished, deadline)
        return Running(
            names={row.id: row.name for row in rows},
            containers=tuple(containers),
            problem=f"what GPUs they have is not known: {'; '.join(failed)}" if failed else "",
        )

    def _is_relevant(self, row: ContainerRow) -> bool:
        if row.state is State.CREATED:
            # A container that was created and never started holds no GPU for ever.
            return time.time() - row.created < self._just_created_s
        return row.state.alive

    def _list_rows(self, deadline: float) -> list[ContainerRow]:
        try:
            body = self._get(f"/containers/json?all=1&filters={quote(_STATES)}", deadline)
        except _BadRequestError:  # an engine without this filter
            body = self._get("/containers/json?all=1", deadline)
        return read_rows(body)

    def _inspect_all(
        self, rows: Iterable[ContainerRow], deadline: float
    ) -> tuple[list[Container], list[str]]:
        containers: list[Container] = []
        failed: list[str] = []
        for row in rows:
            answer = self._inspect_one(row, deadline)
            if isinstance(answer, Container):
                containers.append(answer)
            elif answer:
                failed.append(f"{row.name}: {answer}")
        return containers, failed

    def _inspect_one(self, row: ContainerRow, deadline: float) -> Container | str:
        """The container; else why it could not be inspected, "" if it does not exist any more."""
        try:
            body = self._get(f"/containers/{row.id}/json", deadline)
            return read_container(body, default_runtime="")
        except NoSuchContainer:
            return ""
        except (OSError, OverflowError, ValueError, Malformed) as error:
            return _describe_error(error)

    def _get(self, path: str, deadline: float) -> bytes:
        """The body of an answer. Raises `NoSuchContainer`, OSError, OverflowError, ValueError."""
        family, address = _endpoint(self._url)
        with DeadlineSocket(family, deadline) as connection:
            connection.connect(address)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            answer = bytearray()
            chunk = bytearray(1 << 16)
            while received := connection.recv_into(chunk):
                answer += chunk[:received]
        head, separator, body = bytes(answer).partition(b"\r\n\r\n")
        status = head.split(b"\r\n", 1)[0].split(b" ")
        if not separator or len(status) < 2 or not status[0].startswith(b"HTTP/1."):
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
    """The engine does not understand the request."""


def _endpoint(url: str) -> tuple[int, str | tuple[str, int]]:
    """The family and the address of a socket. Raises ValueError for another scheme."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return AF_UNIX, parts.path
    if parts.scheme in {"tcp", "http"} and parts.hostname:
        family = AF_INET6 if ":" in parts.hostname else AF_INET
        return family, (parts.hostname, parts.port or 2375)
    raise ValueError(f"not asked over {parts.scheme}")


def _describe_error(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return make_printable(str(text)[:200])
