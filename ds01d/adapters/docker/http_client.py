"""HTTP to one Docker engine: every call ends in time, no answer grows without bound.

It moves bytes and describes failures with the engine's address; what the bytes mean is not its
concern. A connection serves one call, so that the call's deadline is the connection's and each
answer's sender is known.
"""

# decision 86: no SDK. Docker's own would read ~/.docker/config.json, where an odd `auth` of a user
# stops it (docker-py issues 927, 1021), and takes five times as long for a call.

from __future__ import annotations

import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPResponse
from urllib.parse import urlencode

import msgspec

from ds01d.adapters.docker.api_version import EngineVersion, choose_api_version
from ds01d.adapters.docker.call_errors import describe_failure, describe_problem, read_refusal
from ds01d.adapters.docker.connections import EngineConnection, PlainConnection, RawConnection
from ds01d.adapters.docker.connector import Connector
from ds01d.adapters.docker.deadline_socket import MAX_ANSWER_BYTES, DeadlineSocket
from ds01d.adapters.docker.decoding import T, decode_answer
from ds01d.errors import EngineFailed, EngineRefused, EngineUnresponsive, Malformed, NoSuchContainer
from ds01d.text import format_span

# What Docker takes for a name or an ID. Nothing else may become part of a URL: quoting alone does
# not help, since the engine unquotes first and then cleans away `..` and `//`.
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Of a name that may be the beginning of an ID, which has 64 of them.
_ID_BEGINNING = re.compile(r"[0-9a-f]{1,63}")
_AMBIGUOUS = "multiple ids found with provided prefix"
_PING_S = 15.0
_RECENT_LINES = 256  # of a pull: more than an image has layers
_CONNECTION_CLOSE = {"Connection": "close"}
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class _NamedRow(msgspec.Struct, rename="pascal"):
    """Of a list of containers, what finds one by its name."""

    id: str
    names: list[str] = []


class HttpClient:
    """Calls one engine. One thread at a time may call; `abort` and `close` are for any thread."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.is_dockerd = False
        """The engine is Docker's own, by its last answer to /version."""
        self._timeout_s = self._call_timeout_s = timeout_s
        self._connector = Connector(url)
        self._deadline = 0.0
        self._socket: DeadlineSocket | None = None
        self._api_version = ""

    @property
    def instance(self) -> str:
        """The process that gave the last answer; "" if it is not known."""
        return self._connector.identify_process()

    @property
    def is_hidden(self) -> bool:
        """The engine is in a PID namespace whose processes cannot be seen from here."""
        return self._connector.is_peer_hidden

    def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """The body of the answer to a GET. Raises `EngineFailed`."""
        with self._wrap_errors(), self._request("GET", path, params) as response:
            body = response.read()
        if response.status != 200:
            raise self._describe_refusal("GET", path, response.status, body)
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
        """Ask for a change: the status, below 400, and the body of the answer.

        Raises `EngineRefused` (or `NoSuchContainer`) if Docker refused; after any other
        `EngineFailed` the change may have been made, or may still be.
        """
        with (
            self._wrap_errors(),
            self._request(method, path, params, body, timeout_s=timeout_s) as response,
        ):
            answer = response.read()
        if response.status >= 400:
            raise self._describe_refusal(method, path, response.status, answer)
        return response.status, answer

    def inspect(self, reference: str) -> bytes:
        """The inspect answer for a container, by ID or by name.

        Raises `NoSuchContainer` if Docker answers so in its own words, or if Docker could not have
        such a name at all; a 404 in other words may come from a proxy.
        """
        # Checked before the call: no name of the books becomes another path of the API.
        if not _REFERENCE.fullmatch(reference):
            raise NoSuchContainer(f"invalid container name {reference[:80]!a}")
        try:
            return self.get(f"/containers/{reference}/json")
        except EngineRefused as refusal:
            if _ID_BEGINNING.fullmatch(reference) and _AMBIGUOUS in refusal.message.lower():
                return self._inspect_by_name(reference)
            raise

    def _inspect_by_name(self, name: str) -> bytes:
        """Inspect the container of this very name. Raises `NoSuchContainer` if there is none."""
        # Decision 370: several IDs begin so, and Docker fails before it says that nothing has that
        # name.
        filters = msgspec.json.encode({"name": [f"^/?{name}$"]}).decode()
        body = self.get("/containers/json", {"all": "1", "filters": filters})
        for row in self.decode_answer(body, list[_NamedRow], "list of containers"):
            if f"/{name}" in row.names:
                return self.get(f"/containers/{row.id}/json")
        raise NoSuchContainer(f"no container is named {name}, and several IDs begin so")

    def ping(self) -> None:
        """Check that the engine answers. Raises `EngineFailed`."""
        self.get("/_ping")

    def follow_events(self, filters: Mapping[str, list[str]], idle_s: float) -> Iterator[bytes]:
        """Open the stream of events, then yield a line for each.

        After each `idle_s` without an event the engine must answer a ping. Raises `EngineFailed`:
        at once if the stream cannot be opened, later if it breaks.
        """
        params = {"filters": msgspec.json.encode(filters).decode()}
        return self._open_stream("GET", "/events", params, idle_s, self._timeout_s)

    def fetch_past_events(self, since: float, until: float) -> bytes:
        """The events that the engine still has, of every type, a line each. Wall-clock times.

        Docker keeps the last 256 of this very process and answers at once where `until` is past.
        Raises `EngineFailed`.
        """
        return self.get("/events", {"since": f"{since:.6f}", "until": f"{until:.6f}"})

    def pull_image(
        self, params: Mapping[str, str], *, opening_s: float, idle_s: float, total_s: float
    ) -> Iterator[bytes]:
        """Pull an image, yielding a line for each step.

        The first line may take `opening_s`: Docker waits for the registry before it answers. It
        fails after `idle_s` without a new line, and after `total_s`; meanwhile pings as in
        `follow_events`.
        """
        moved_at = time.monotonic()
        ends_at = moved_at + total_s
        recent: deque[bytes] = deque(maxlen=_RECENT_LINES)

        def check_progress() -> None:
            self._check_alive()
            now = time.monotonic()
            if now >= ends_at:
                raise self.make_error(f"not complete after {format_span(total_s)}")
            if now - moved_at >= idle_s:
                raise self.make_error(f"no progress for {format_span(idle_s)}")

        every_s = min(_PING_S, idle_s, total_s)
        path = "/images/create"
        for line in self._open_stream(
            "POST", path, params, every_s, opening_s, on_idle=check_progress
        ):
            now = time.monotonic()
            # containerd repeats ten times a second where each layer is, also while nothing comes.
            if line not in recent:
                recent.append(line)
                moved_at = now
            if now >= ends_at or now - moved_at >= idle_s:
                check_progress()
            yield line

    def open_raw(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        upgrade: bool,
    ) -> socket.socket:
        """The connection behind the head of an answer, with all of its body. Raises `EngineFailed`.

        `upgrade`: it is a stream in both directions from then on, and serves no other request;
        any other answer than such a stream is a refusal. The caller closes it.
        """
        with self._wrap_errors():
            kind = RawConnection if upgrade else PlainConnection
            headers = _UPGRADE if upgrade else _CONNECTION_CLOSE
            with self._request(method, path, params, body, headers=headers, kind=kind) as response:
                is_open = response.status == (101 if upgrade else 200)
                if is_open and self._socket is not None:
                    # A copy, since the answer closes the connection that it came over.
                    return socket.socket(fileno=os.dup(self._socket.fileno()))
                answer = response.read()
        raise self._describe_refusal(method, path, response.status, answer)

    def abort(self) -> None:
        """Break every connection, from any thread: what waits for one fails at once."""
        self._connector.abort_all()

    def close(self) -> None:
        """Break every connection and allow no other."""
        self._connector.close()

    def decode_answer(self, body: bytes, form: type[T], subject: str) -> T:
        """JSON of an answer as `form`. Raises `EngineFailed`, with `subject` as what it is."""
        try:
            return decode_answer(body, form, subject)
        except Malformed as error:
            raise self.make_error(str(error)) from error

    def make_error(self, reason: str) -> EngineFailed:
        """An error that names the engine's address, on one line."""
        return EngineFailed(describe_problem(self.url, reason))

    def _open_stream(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        idle_s: float,
        opening_s: float,
        *,
        on_idle: Callable[[], None] | None = None,
    ) -> Iterator[bytes]:
        with self._wrap_errors():
            response = self._request(method, path, params, timeout_s=opening_s)
            if response.status != 200:
                raise self._describe_refusal(method, path, response.status, response.read())
        stream = self._socket
        if stream is None:
            raise self.make_error("answer without a connection")
        # A stream has no end to wait for, so pings prove that the engine still lives.
        stream.remove_deadline(idle_s, on_idle or self._check_alive)
        return self._split_lines(response, stream)

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None = None,
        *,
        timeout_s: float | None = None,
        headers: Mapping[str, str] = _CONNECTION_CLOSE,
        kind: type[EngineConnection] = EngineConnection,
    ) -> HTTPResponse:
        """The head of the answer; its body can be read from it."""
        self._call_timeout_s = self._timeout_s if timeout_s is None else timeout_s
        self._deadline = time.monotonic() + self._call_timeout_s
        # decision 144: the newest version that is tested, not the newest of the engine.
        if not self._api_version:
            self._api_version = self._negotiate_version()
        # A new connection for each call: its socket has the deadline of the call.
        query = f"?{urlencode(params)}" if params else ""
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        return self._exchange(method, f"/v{self._api_version}{path}{query}", body, headers, kind)

    def _negotiate_version(self) -> str:
        with self._exchange("GET", "/version", None, _CONNECTION_CLOSE) as response:
            body = response.read()
        if response.status != 200:
            raise self._describe_refusal("GET", "/version", response.status, body)
        version = msgspec.json.decode(body, type=EngineVersion)
        chosen = choose_api_version(version.api_version, version.min_api_version or "")
        self.is_dockerd = version.is_dockerd
        return chosen

    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        kind: type[EngineConnection] = EngineConnection,
    ) -> HTTPResponse:
        connection = kind(self._connect)
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # from here on the answer alone keeps it open
            connection.sock.close()
        return response

    def _connect(self) -> DeadlineSocket:
        self._socket = self._connector.connect(self._deadline)
        return self._socket

    def _split_lines(self, response: HTTPResponse, stream: DeadlineSocket) -> Iterator[bytes]:
        pending = b""
        with self._wrap_errors(), response:
            while chunk := response.read1():
                *lines, pending = (pending + chunk).split(b"\n")
                if lines:  # the size limit holds for one line of a stream, not for all of it
                    stream.bytes_left = MAX_ANSWER_BYTES
                yield from filter(None, lines)

    def _check_alive(self) -> None:
        try:
            self.ping()
        except EngineFailed as failure:
            raise EngineUnresponsive(str(failure)) from failure

    def _describe_refusal(self, method: str, path: str, status: int, body: bytes) -> Exception:
        message = read_refusal(body)
        # A proxy has 404s of its own, and this one may lead to a release (decision 3).
        if status == 404 and "no such container" in message.lower():
            return NoSuchContainer(message)
        self._api_version = ""  # It may be another engine by now, of another version.
        error = self.make_error(f"{method} {path} answered {status}: {message}")
        return EngineRefused(str(error), status=status, message=message)

    @contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        """Turn whatever the libraries raise (invalid data has many forms) into `EngineFailed`."""
        try:
            yield
        except EngineFailed:
            raise
        except Exception as error:
            self._api_version = ""
            if self._connector.is_closed:
                raise self.make_error("connection closed by ds01d") from error
            raise EngineFailed(describe_failure(error, self.url, self._call_timeout_s)) from error
