"""A proxy in front of an engine's socket that spoils answers on demand.

Requests are picked by a pattern on method and path; events are dropped, doubled or held back one by
one, or change places with the next. What is not picked goes through as it is.
"""

import collections
import contextlib
import enum
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from simulation.unix_http import UnixHandler, UnixServer

PASS: Final = (0.0,)
DROP: Final = ()
TWICE: Final = (0.0, 0.0)

OnEvent = Callable[[dict[str, Any]], Sequence[float]]
"""What becomes of an event: a delay in seconds for each copy that is passed on."""


class Mode(enum.Enum):
    """What becomes of a request."""

    DELAY = "answer after a while"
    RESET = "close the connection without an answer"
    ERROR = "answer 500, as an engine in trouble"
    GARBAGE = "answer something that is no HTTP"
    NONSENSE = "answer 200 with something that is no JSON"
    HALF = "announce the whole answer, send half of it and close"
    HANG = "accept, and never answer"
    HOLD = "answer once the test lets it"
    OLD = "answer as some time ago"


SPOILING = frozenset(Mode) - {Mode.DELAY, Mode.OLD}
"""Those that leave the caller without an answer that makes sense."""


@dataclass(slots=True, kw_only=True)
class _Fault:
    pattern: re.Pattern[str]
    mode: Mode
    delay_s: float
    left: int | None
    met: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A request that is held: `met` is set when it has come, and it goes on with `go`."""

    met: threading.Event
    go: threading.Event


class Proxy:
    """A proxy in threads of this process, as a context manager."""

    def __init__(self, path: Path, upstream: Path) -> None:
        """Prepare a proxy at `path` for the engine at `upstream`; `with` starts it."""
        self.socket = path
        self.url = f"unix://{path}"
        self.upstream = upstream
        self.on_event: OnEvent = lambda _: PASS
        self.swap_events = False
        """Each event waits for the next one and goes after it."""
        self.cut_events_after_s: float | None = None
        """So long a stream of events lasts: the idle timeout of a proxy."""
        self.calls: list[str] = []
        """Method and path of every request, without version and query."""
        self.closing = threading.Event()
        self._faults: list[_Fault] = []
        self._lists: collections.deque[tuple[float, str, bytes]] = collections.deque(maxlen=100)
        self._lock = threading.Lock()
        self._server: UnixServer[Proxy] | None = None

    def __enter__(self) -> "Proxy":  # noqa: PYI034 - typing has no Self in Python 3.10
        """Start it."""
        self.accept()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, with all its connections."""
        self.closing.set()
        self.refuse()
        self.socket.unlink(missing_ok=True)

    def fault(
        self, pattern: str, mode: Mode, *, delay_s: float = 0, first: int | None = None
    ) -> None:
        """Spoil the requests whose `GET /path` the pattern is found in: all, or the first ones.

        The newest fault that fits is the one that counts. `delay_s`: how long DELAY takes, and how
        old what OLD answers is at least; it has lists of containers only.
        """
        found = _Fault(pattern=re.compile(pattern), mode=mode, delay_s=delay_s, left=first)
        self._add(found)

    def hold(self, pattern: str) -> Hold:
        """Hold the first request that fits until the test lets it go on."""
        found = _Fault(pattern=re.compile(pattern), mode=Mode.HOLD, delay_s=0, left=1)
        self._add(found)
        return Hold(met=found.met, go=found.go)

    def _add(self, found: _Fault) -> None:
        with self._lock:
            self._faults.insert(0, found)

    def clear(self) -> None:
        """Let all pass again. What hangs already goes on hanging."""
        with self._lock:
            self._faults.clear()
        self.on_event = lambda _: PASS
        self.swap_events = False
        self.cut_events_after_s = None

    def cut(self) -> None:
        """End every connection that is open, and accept new ones."""
        if self._server is not None:
            self._server.cut()

    def refuse(self) -> None:
        """End every connection, and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def accept(self) -> None:
        """Accept connections again."""
        if self._server is None:
            self._server = UnixServer(self.socket, self, _Handler)
            self._server.run()

    def remember(self, path: str, answer: bytes) -> None:
        """Keep a list of containers, for OLD."""
        with self._lock:
            self._lists.append((time.monotonic(), path, answer))

    def old(self, path: str, age_s: float) -> bytes | None:
        """The newest answer to that request which is so old, None if there is none."""
        until = time.monotonic() - age_s
        with self._lock:
            for at, asked, answer in reversed(self._lists):
                if asked == path and at < until:
                    return answer
        return None

    def pick(self, call: str) -> _Fault | None:
        """Find the fault that this request meets, and count it."""
        with self._lock:
            self.calls.append(call)
            for fault in self._faults:
                if fault.pattern.search(call) and fault.left != 0:
                    if fault.left is not None:
                        fault.left -= 1
                    return fault
        return None


class _Upstream(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(UnixHandler[Proxy]):
    def handle_call(self) -> None:
        """Forward the request, or spoil it."""
        body = self.read_body()
        fault = self.owner.pick(f"{self.command} {self.plain_path}")
        if fault is None:
            self._forward(body)
        elif fault.mode is Mode.DELAY:
            self.owner.closing.wait(fault.delay_s)
            self._forward(body)
        elif fault.mode is Mode.HOLD:
            fault.met.set()
            while not fault.go.wait(0.05) and not self.owner.closing.is_set():
                pass
            self._forward(body)
        elif fault.mode is Mode.HALF:
            self._forward(body, half=True)
        elif fault.mode is Mode.OLD:
            answer = self.owner.old(self.path, fault.delay_s)
            if answer is None:
                self._forward(body)
            else:
                self._answer(200, answer)
        else:
            self._spoil(fault.mode)

    def _spoil(self, mode: Mode) -> None:
        # An answer that is whole leaves the connection open: the client will use it again.
        self.close_connection = mode not in {Mode.ERROR, Mode.NONSENSE}
        if mode is Mode.ERROR:
            self._answer(500, b'{"message":"the engine is in trouble"}\n')
        elif mode is Mode.NONSENSE:
            self._answer(200, b'[{"Id": "deadbeef", "Na\x00\xff')
        elif mode is Mode.GARBAGE:
            self.wfile.write(b"\x16\x03\x01\x02garbage\r\n\r\n")
        elif mode is Mode.HANG:
            # Until the client gives up, or we do.
            with contextlib.suppress(OSError):
                self.connection.recv(1)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _forward(self, body: bytes, *, half: bool = False) -> None:
        headers = {key: value for key, value in self.headers.items() if key != "Connection"}
        with contextlib.closing(_Upstream(self.owner.upstream)) as upstream:
            upstream.request(self.command, self.path, body or None, headers)
            with upstream.getresponse() as response:
                self.send_response_only(response.status, response.reason)
                for key, value in response.getheaders():
                    if key not in {"Connection", "Content-Length", "Transfer-Encoding"}:
                        self.send_header(key, value)
                endless = self.plain_path == "/events" and "until=" not in self.path
                if endless and response.status == 200:
                    self._stream(upstream, response, half=half)
                else:
                    answer = response.read()
                    if self.plain_path == "/containers/json" and response.status == 200:
                        self.owner.remember(self.path, answer)
                    self._copy(answer, half=half)

    def _copy(self, answer: bytes, *, half: bool) -> None:
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if half:
            self.close_connection = True
            self.wfile.write(answer[: len(answer) // 2])
        elif self.command != "HEAD":
            self.wfile.write(answer)

    def _stream(
        self, upstream: _Upstream, response: http.client.HTTPResponse, *, half: bool
    ) -> None:
        self.close_connection = True
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        threading.Thread(target=self._until_client_goes, args=(upstream.sock,), daemon=True).start()
        if self.owner.cut_events_after_s is not None:
            cut = threading.Timer(self.owner.cut_events_after_s, _hang_up, [self.connection])
            cut.daemon = True
            cut.start()
        kept = b""
        while line := response.readline():
            if half:
                return self.chunk(line[: len(line) // 2])
            for delay in self.owner.on_event(json.loads(line)):
                if self.owner.closing.wait(delay):
                    return None
                if self.owner.swap_events and not kept:
                    kept = line
                else:
                    self.chunk(line + kept)
                    kept = b""
        if response.isclosed():  # It came to its end; an engine that is killed just breaks off.
            self.wfile.write(b"0\r\n\r\n")
        return None

    def _until_client_goes(self, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)
