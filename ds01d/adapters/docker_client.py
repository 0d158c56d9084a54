"""Docker's API, made to keep promises: every call ends in time, no answer grows without bound.

The only importer of the SDK and of what it stands on. It moves bytes and says what went wrong, in
words that name the socket; what the bytes mean is not its business. A connection lives for one
call, so that the call's deadline is the connection's and each answer's sender is known.

The SDK reads the address and agrees on a version. The calls go over http.client, in a fifth of the
time that the SDK's layers take for one (0.15 instead of 0.73 ms): a release waits for two.
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

import docker
import msgspec
import urllib3
from docker.transport.basehttpadapter import BaseHTTPAdapter
from docker.utils import parse_host

from ds01d.adapters.docker_line import MOST_BYTES, Line
from ds01d.errors import ConfigError, EngineFailed, EngineRefused, NoSuchContainer

_PID_FILE = Path("/run/docker.pid")

# What Docker takes for a name or an id. Nothing else may become part of a URL: quoting alone does
# not help, since the engine unquotes first and then cleans away `..` and `//`.
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Client:
    """Asks one engine. One thread at a time may ask; `cut` and `close` are for any thread."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self._timeout_s = self._patience_s = timeout_s
        self._family, self._address = _endpoint(url)
        self._until = 0.0
        self._peer = 0
        self._line: Line | None = None
        self._api: _Api | None = None
        self._guard = threading.Lock()
        self._lines: weakref.WeakSet[Line] = weakref.WeakSet()
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
            if pid > 1:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
                return f"{pid}:{stat.rpartition(')')[2].split()[19]}"
        return ""

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
        if self._api is None:
            # Asks for the API version, so that old engines and new ones understand us.
            self._api = _Api(self.url, self._dial)
        query = f"?{urlencode(params)}" if params else ""
        headers = {"Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = _Connection(self._dial)
        try:
            connection.request(
                method, f"/v{self._api.api_version}{path}{query}", body=body, headers=headers
            )
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # from here on the answer alone keeps it open
            connection.sock.close()
        return response

    def _dial(self) -> Line:
        line = Line(self._family, self._until)
        with self._guard:
            if self._closed:
                line.close()
                raise ConnectionAbortedError("closed")
            self._lines.add(line)
        try:
            line.connect(self._address)
        except OSError:
            line.close()
            raise
        self._peer = line.peer()
        self._line = line
        return line

    def _split(self, response: HTTPResponse, line: Line) -> Iterator[bytes]:
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
            raise ConnectionAbortedError(str(failure)) from failure

    def _refusal(self, method: str, path: str, status: int, body: bytes) -> Exception:
        try:
            message = msgspec.json.decode(body, type=_Refusal).message
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            message = "in no words of Docker's"
        if status == 404 and "no such container" in message.lower():
            return NoSuchContainer(message)
        self._api = None  # It may be another engine by now, of another version.
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
            self._api = None
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
            case PermissionError():
                return "no permission to use the socket"
            case TimeoutError():
                return f"no complete answer within {self._patience_s:g} s"
            case ConnectionError():
                return f"the connection broke off: {root}"
            case _:
                return f"the answer makes no sense or broke off: {type(root).__name__}: {root}"


class _Refusal(msgspec.Struct):
    message: str


class _Api(docker.APIClient):
    """The SDK's client over connections of ours."""

    def __init__(self, url: str, dial: Callable[[], Line]) -> None:
        self._adapter = _Adapter(dial)  # Before super(), which asks for the API version.
        super().__init__(base_url=url, version="auto")
        self.trust_env = False  # No proxy, no netrc, and no search for them at each call.

    def get_adapter(self, url: str) -> _Adapter:  # noqa: ARG002 - there is only one
        return self._adapter


class _Adapter(BaseHTTPAdapter):
    def __init__(self, dial: Callable[[], Line]) -> None:
        super().__init__()
        self._dial = dial

    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:  # noqa: ANN401, ARG002
        return _Pool(self._dial)  # A pool for each call: no connection is used again.

    def request_url(self, request: Any, proxies: Any) -> str:  # noqa: ANN401, ARG002
        return str(request.path_url)

    def add_headers(self, request: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        request.headers.update({"Connection": "close", "Accept-Encoding": "identity"})


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, dial: Callable[[], Line]) -> None:
        super().__init__("localhost")
        self._dial = dial

    def _new_conn(self) -> _PoolConnection:
        return _PoolConnection(self._dial)


class _PoolConnection(urllib3.connection.HTTPConnection):
    def __init__(self, dial: Callable[[], Line]) -> None:
        super().__init__("localhost")
        self._dial = dial

    def connect(self) -> None:
        self.sock = self._dial()


class _Connection(HTTPConnection):
    def __init__(self, dial: Callable[[], Line]) -> None:
        super().__init__("localhost")
        self._dial = dial

    def connect(self) -> None:
        self.sock = self._dial()


def _endpoint(url: str) -> tuple[int, Any]:
    try:
        host = str(parse_host(url)) if url else ""
    except docker.errors.DockerException as error:
        raise ConfigError(f"[docker] url = {url!r}: {error}") from error
    if host.startswith("http+unix://"):
        return socket.AF_UNIX, "/" + host.removeprefix("http+unix://").lstrip("/")
    if host.startswith("http://"):
        at = urllib3.util.parse_url(host)
        return socket.AF_INET, (at.host, at.port)
    raise ConfigError(
        f'[docker] url = {url!r}: write "unix:///run/docker.sock" or "tcp://host:port"'
    )
