"""Docker's API, made to keep promises: every call ends in time, no answer grows without bound.

It moves bytes and says what went wrong, in words that name the socket; what the bytes mean is not
its business. A connection lives for one call, so that the call's deadline is the connection's and
each answer's sender is known.

No SDK: Docker's own would read ~/.docker/config.json, where an odd `auth` of a user stops it
(docker-py issues 927, 1021), and takes five times as long for a call (0.73 instead of 0.15 ms).
"""

from __future__ import annotations

import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from ds01d import config_text
from ds01d.adapters.docker.deadline_socket import MOST_BYTES, DeadlineSocket
from ds01d.errors import (
    ConfigError,
    EngineFailed,
    EngineRefused,
    EngineUnresponsive,
    NoSuchContainer,
)

_PID_FILE = Path("/run/docker.pid")

# What Docker takes for a name or an id. Nothing else may become part of a URL: quoting alone does
# not help, since the engine unquotes first and then cleans away `..` and `//`.
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_API_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
# The newest version of the API whose answers we know (Docker 28.5). Each version may drop fields:
# 1.52 did (moby, api/docs/CHANGELOG.md).
_NEWEST_API = (1, 51)


class HttpClient:
    """Asks one engine. One thread at a time may ask; `cut` and `close` are for any thread."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self._timeout_s = self._patience_s = timeout_s
        try:
            self._endpoint = config_text.engine_endpoint(url)
        except ValueError as error:
            raise ConfigError(f"docker.url: {error}") from error
        self._until = 0.0
        self._peer: int | None = None
        self._line: DeadlineSocket | None = None
        self._api_version = ""
        self.is_dockerd = False
        """Whether the last engine that was asked for its version is Docker's own (or Moby)."""
        self._guard = threading.Lock()
        self._lines: weakref.WeakSet[DeadlineSocket] = weakref.WeakSet()
        self._closed = False

    @property
    def instance(self) -> str:
        """The process that gave the last answer: its pid and start time.

        Where systemd listens for dockerd, as Docker's packages have it, dockerd's own pid file
        tells. "" where it cannot be told: over TCP, or for a process that /proc does not show.
        """
        with suppress(OSError, ValueError, IndexError):
            pid = self._peer
            if pid == 1:
                pid = int(_PID_FILE.read_text(encoding="ascii"))
            if pid is not None and pid > 1:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
                return f"{pid}:{stat.rpartition(')')[2].split()[19]}"
        return ""

    @property
    def is_hidden(self) -> bool:
        """Whether the engine is in a PID namespace whose processes cannot be seen from here."""
        return self._peer == 0

    def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """The body of the answer to a GET. Raises `EngineFailed`."""
        with self._explained(), self._ask("GET", path, params) as response:
            body = response.read()
        if response.status != 200:
            raise self._refusal("GET", path, response.status, body)
        return body

    def send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        timeout_s: float | None = None,
    ) -> tuple[int, bytes]:
        """Ask for something to be done: the status, below 400, and the body of the answer.

        Raises `EngineRefused` (or `NoSuchContainer`) if Docker says no; any other `EngineFailed`
        leaves open whether it was done, or still will be.
        """
        with (
            self._explained(),
            self._ask(method, path, params, body, timeout_s=timeout_s) as response,
        ):
            answer = response.read()
        if response.status >= 400:
            raise self._refusal(method, path, response.status, answer)
        return response.status, answer

    def inspect(self, reference: str) -> bytes:
        """The inspect answer for a container, by id or by name.

        Raises `NoSuchContainer` if Docker says so in its own words, or if Docker could not have
        such a name at all; a 404 in other words may come from something in between.
        """
        if not _REFERENCE.fullmatch(reference):
            raise NoSuchContainer(f"{reference[:80]!a} is no name that a container can have")
        return self.get(f"/containers/{reference}/json")

    def ping(self) -> None:
        """Ask for a sign of life. Raises `EngineFailed`."""
        self.get("/_ping")

    def follow(self, filters: Mapping[str, list[str]], idle_s: float) -> Iterator[bytes]:
        """Open the stream of events, then give them a line each, as they come.

        A stream silent for `idle_s` is believed as long as the engine answers a ping. Raises
        `EngineFailed`, at once if the stream cannot be opened and later when it breaks.
        """
        wanted = {"filters": msgspec.json.encode(filters).decode()}
        return self._stream("GET", "/events", wanted, idle_s, self._timeout_s)

    def past_events(self, since: float, until: float) -> bytes:
        """What the engine remembers of its events, of every type, a line each. Wall-clock times.

        Docker keeps the last 256 of this very process and answers at once where `until` is past.
        Raises `EngineFailed`.
        """
        return self.get("/events", {"since": f"{since:.6f}", "until": f"{until:.6f}"})

    def pull(self, image: Mapping[str, str], *, idle_s: float, opening_s: float) -> Iterator[bytes]:
        """Have an image pulled, and give a line for each thing that Docker tells of it.

        As patient with a silent stream as `follow`. The first word may take `opening_s`: Docker
        says nothing before the registry has answered it.
        """
        return self._stream("POST", "/images/create", image, idle_s, opening_s)

    def cut(self) -> None:
        """Break every connection, from any thread: what waits for one fails at once."""
        with self._guard:
            for line in self._lines:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break every connection and allow no other."""
        self._closed = True
        self.cut()

    def failed(self, reason: str) -> EngineFailed:
        """A failure in words for people, with nothing in it that could break a line."""
        words = "".join(c if c.isprintable() else " " for c in reason[:300]).strip()
        return EngineFailed(f"Docker at {self.url}: {words}")

    def _stream(
        self, method: str, path: str, params: Mapping[str, str], idle_s: float, opening_s: float
    ) -> Iterator[bytes]:
        with self._explained():
            response = self._ask(method, path, params, timeout_s=opening_s)
            if response.status != 200:
                raise self._refusal(method, path, response.status, response.read())
        line = self._line
        if line is None:
            raise self.failed("an answer came from nowhere")
        line.follow(idle_s, self._still_there)
        return self._split(response, line)

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None = None,
        *,
        timeout_s: float | None = None,
    ) -> HTTPResponse:
        """The head of the answer; its body is there to be read."""
        self._patience_s = self._timeout_s if timeout_s is None else timeout_s
        self._until = time.monotonic() + self._patience_s
        if not self._api_version:
            self._api_version = self._agree()
        query = f"?{urlencode(params)}" if params else ""
        headers = {"Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._open(method, f"/v{self._api_version}{path}{query}", body, headers)

    def _agree(self) -> str:
        """Agree on an API version, so that old engines and new ones understand us and we them.

        The one path that every engine answers without a version.
        """
        with self._open("GET", "/version", None, {"Connection": "close"}) as response:
            body = response.read()
        if response.status != 200:
            raise self._refusal("GET", "/version", response.status, body)
        answer = msgspec.json.decode(body, type=_Version)
        version = choose_api_version(answer.api_version, answer.min_api_version or "")
        self.is_dockerd = any(part.name == "Engine" for part in answer.components or ())
        return version

    def _open(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> HTTPResponse:
        connection = _Connection(self._dial)
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # from here on the answer alone keeps it open
            connection.sock.close()
        return response

    def _dial(self) -> DeadlineSocket:
        """A connection to the first of the engine's addresses that takes one."""
        *others, last = _addresses(self._endpoint)
        for family, address in others:
            with suppress(OSError):
                return self._connect(family, address)
        return self._connect(*last)

    def _connect(self, family: int, address: Any) -> DeadlineSocket:  # noqa: ANN401 - as the family has it
        line = DeadlineSocket(family, self._until)
        with self._guard:
            if self._closed:
                line.close()
                raise ConnectionAbortedError("closed")
            self._lines.add(line)
        try:
            line.connect(address)
        except OSError:
            line.close()
            raise
        self._peer = line.peer()
        self._line = line
        return line

    def _split(self, response: HTTPResponse, line: DeadlineSocket) -> Iterator[bytes]:
        pending = b""
        with self._explained(), response:
            while chunk := response.read1():
                *whole, pending = (pending + chunk).split(b"\n")
                if whole:
                    line.left = MOST_BYTES
                yield from filter(None, whole)

    def _still_there(self) -> None:
        try:
            self.ping()
        except EngineFailed as failure:
            raise EngineUnresponsive(str(failure)) from failure

    def _refusal(self, method: str, path: str, status: int, body: bytes) -> Exception:
        try:
            message = msgspec.json.decode(body, type=_Refusal).message
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            message = "in no words of Docker's"
        if status == 404 and "no such container" in message.lower():
            return NoSuchContainer(message)
        self._api_version = ""  # It may be another engine by now, of another version.
        words = self.failed(f"it answered {status} to {method} {path}: {message}")
        return EngineRefused(str(words), status=status, message=message)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever the libraries raise, garbage having many forms, becomes `EngineFailed`."""
        try:
            yield
        except EngineFailed:
            raise
        except Exception as error:
            self._api_version = ""
            raise self.failed(self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        root: BaseException = error
        while (inner := root.__cause__ or root.__context__) is not None:
            root = inner
        match root:
            case _ if self._closed:
                return "we closed the connection"
            case FileNotFoundError():
                return "there is no such socket: Docker does not run, or listens elsewhere"
            case ConnectionRefusedError():
                return "nobody listens there: Docker does not run"
            case socket.gaierror():
                return f"the name of its host cannot be resolved: {root.strerror}"
            case PermissionError():
                return "no permission to use the socket"
            case TimeoutError():
                return f"no complete answer within {self._patience_s:g} s"
            case ConnectionError():
                return f"the connection broke off: {root}"
            case _:
                return f"the answer makes no sense or broke off: {type(root).__name__}: {root}"


def choose_api_version(newest: str, oldest: str = "") -> str:
    """The version of the API to ask for, of those from `oldest` to `newest` that an engine speaks.

    The newest that we know; where the engine speaks none that we know, the oldest that it speaks:
    Docker 29 refuses what is older than 1.44. `oldest`: "" where the engine does not say. Raises
    `ValueError` for what is not an API version.
    """
    wanted = min(_parse_version(newest), _NEWEST_API)
    if oldest:
        wanted = max(wanted, _parse_version(oldest))
    return "{}.{}".format(*wanted)


def _parse_version(text: str) -> tuple[int, int]:
    found = _API_VERSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!a} is not an API version")
    return int(found.group(1)), int(found.group(2))


class _Refusal(msgspec.Struct):
    message: str


class _Component(msgspec.Struct):
    name: str = msgspec.field(name="Name", default="")


class _Version(msgspec.Struct):
    api_version: str = msgspec.field(name="ApiVersion")
    min_api_version: str | None = msgspec.field(name="MinAPIVersion", default=None)
    components: list[_Component] | None = msgspec.field(name="Components", default=None)


class _Connection(HTTPConnection):
    def __init__(self, dial: Callable[[], DeadlineSocket]) -> None:
        super().__init__("localhost")
        self._dial = dial

    def connect(self) -> None:
        self.sock = self._dial()


def _addresses(endpoint: config_text.Endpoint) -> Iterator[tuple[int, Any]]:
    """Family and address of each way to the engine: one socket, or all that a host's name means."""
    if endpoint.path:
        yield socket.AF_UNIX, endpoint.path
        return
    for found in socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM):
        yield found[0], found[4]
