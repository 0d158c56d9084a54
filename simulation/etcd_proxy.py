"""A proxy between one host and one member of etcd that spoils answers on demand.

It speaks the JSON gateway's HTTP and names each request by what it does to the keys of a fleet, so
that a fault, or the death of the host, can be put between two steps of one booking. A request may
arrive after its sender gave up, or twice: networks and retrying middlemen do both.
"""

import contextlib
import enum
import http.client
import select
import socket
import socketserver
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Final

from simulation.etcd_steps import Step, read_step
from simulation.ports import hold_port

_UPSTREAM_S: Final = 60.0
_HOP_BY_HOP: Final = {"connection", "content-length", "transfer-encoding", "keep-alive"}


class Fault(enum.Enum):
    """What becomes of a request."""

    SWALLOW = "take it, and neither forward nor answer it"
    LATE = "forward it only when its sender has given up"
    LOSE_REPLY = "forward it, and close the connection instead of answering"
    HANG = "forward it, and never answer"
    AGAIN = "forward it and answer; once more a while later"
    UNAVAILABLE = "answer 503 in etcd's words, without forwarding it"
    GARBAGE = "answer something that is no HTTP"
    NONSENSE = "answer 200 with something that is no JSON"
    HALF = "forward it, announce the whole answer and send half"


class Moment(enum.Enum):
    """Of one request."""

    ARRIVED = "not forwarded yet"
    COMMITTED = "etcd has answered, the host does not know"
    ANSWERED = "the host has the answer"


@dataclass(slots=True, kw_only=True)
class _Rule:
    steps: frozenset[Step]
    fault: Fault
    left: int | None


OnStep = Callable[[Step, Moment], None]


def ignore_steps(_: Step, __: Moment) -> None:
    """Do nothing."""


class HostLinks:
    """The proxies of one host: one for each member, with the same faults. A context manager."""

    def __init__(self, members: list[int]) -> None:
        """`members`: the ports of loopback where members answer clients."""
        self.on_step: OnStep = ignore_steps
        """Called at each moment of each request, in the thread that serves it."""
        self.again_after_s = 0.5
        self.closing = threading.Event()
        self.counts: Counter[Step] = Counter()
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._proxies = [_MemberProxy(self, port) for port in members]
        self._is_held = False
        self.waiting: list[Step] = []
        """Requests that were swallowed or hang, and whose sender still waits."""

    def __enter__(self) -> "HostLinks":  # noqa: PYI034 - typing has no Self in Python 3.10
        for proxy in self._proxies:
            proxy.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for proxy in self._proxies:
            proxy.close()

    @property
    def endpoints(self) -> list[str]:
        """What the host has to be told of the members."""
        return [f"http://127.0.0.1:{proxy.port}" for proxy in self._proxies]

    def fault(self, fault: Fault, *steps: Step, first: int | None = None) -> None:
        """Spoil requests: of these steps or of all, the next ones or until `clear`."""
        chosen = frozenset(steps or Step)
        with self._lock:
            self._rules.insert(0, _Rule(steps=chosen, fault=fault, left=first))

    def refuse(self, *members: int) -> None:
        """Cut the host off from members (by their place in the list; none: all)."""
        for number in members or range(len(self._proxies)):
            self._proxies[number].refuse()

    def hold(self) -> None:
        """Cut the host off, whatever `clear` says, until `release`."""
        self._is_held = True
        self.refuse()

    def release(self) -> None:
        self._is_held = False
        self.clear()

    def clear(self) -> None:
        """Let all pass again; what hangs ends. `on_step` stays."""
        with self._lock:
            self._rules.clear()
        for proxy in self._proxies:
            if not self._is_held:
                proxy.accept()
            proxy.cut_hanging()

    def pick(self, step: Step) -> Fault | None:
        with self._lock:
            self.counts[step] += 1
            for rule in self._rules:
                if step in rule.steps and rule.left != 0:
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.fault
        return None

    @contextlib.contextmanager
    def hanging(self, step: Step) -> Iterator[None]:
        """Show that a sender waits in vain."""
        with self._lock:
            self.waiting.append(step)
        try:
            yield
        finally:
            with self._lock:
                self.waiting.remove(step)


_Request = socket.socket | tuple[bytes, socket.socket]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, proxy: "_MemberProxy") -> None:
        self.proxy = proxy
        self.open: set[_Request] = set()
        super().__init__(("127.0.0.1", proxy.port), _Handler)

    def process_request(self, request: _Request, client_address: object) -> None:
        self.open.add(request)
        super().process_request(request, str(client_address))

    def shutdown_request(self, request: _Request) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: _Request, client_address: object) -> None:
        """Say nothing of peers that went away."""
        if not isinstance(sys.exc_info()[1], OSError | http.client.HTTPException):
            super().handle_error(request, str(client_address))


class _MemberProxy:
    def __init__(self, links: HostLinks, member: int) -> None:
        self.links, self.member = links, member
        # Held for good: while nobody listens, a connection of anybody could get the port.
        self._holder = hold_port()
        self.port = int(self._holder.getsockname()[1])
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._hanging: set[_Request] = set()

    def accept(self) -> None:
        """Listen."""
        with self._lock:
            if self._server is None:
                self._server = _Server(self)
                serve = self._server.serve_forever
                threading.Thread(target=serve, args=(0.05,), name="etcd proxy", daemon=True).start()

    def close(self) -> None:
        self.refuse()
        self._holder.close()

    def refuse(self) -> None:
        """End every connection, and refuse new ones."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            _shut(server.open)

    def cut_hanging(self) -> None:
        _shut(self._hanging)

    @contextlib.contextmanager
    def hanging(self, connection: socket.socket) -> Iterator[None]:
        self._hanging.add(connection)
        try:
            yield
        finally:
            self._hanging.discard(connection)


def _shut(connections: set[_Request]) -> None:
    for connection in list(connections):
        assert isinstance(connection, socket.socket)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _proxy(self) -> "_MemberProxy":
        assert isinstance(self.server, _Server)
        return self.server.proxy

    def _call(self) -> None:
        links = self._proxy.links
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        step = read_step(self.path, body)
        links.on_step(step, Moment.ARRIVED)
        fault = links.pick(step)
        match fault:
            case Fault.SWALLOW:
                self._hang(step)
            case Fault.LATE:
                self._hang(step)
                self._send_late(step, body)
            case Fault.UNAVAILABLE:
                self._answer(503, b'{"error":"etcdserver: no leader","code":14}')
            case Fault.GARBAGE:
                self.close_connection = True
                self.wfile.write(b"\x16\x03\x01\x02garbage\r\n\r\n")
            case Fault.NONSENSE:
                self._answer(200, b'{"header": {"revision": "\xff')
            case _ if step is Step.WATCH:
                self._stream(body)
            case _:
                self._forward(step, body, fault)

    do_GET = do_POST = do_PUT = do_DELETE = _call  # noqa: N815 - as http.server wants it

    def _forward(self, step: Step, body: bytes, fault: Fault | None) -> None:
        links = self._proxy.links
        status, answer = self._ask(body)
        links.on_step(step, Moment.COMMITTED)
        if fault is Fault.LOSE_REPLY:
            self.close_connection = True
            return
        if fault is Fault.HANG:
            self._hang(step)
            return
        self._answer(status, answer, half=fault is Fault.HALF)
        links.on_step(step, Moment.ANSWERED)
        if fault is Fault.AGAIN:
            copy = threading.Timer(links.again_after_s, self._send_late, [step, body])
            copy.daemon = True
            copy.start()

    def _send_late(self, step: Step, body: bytes) -> None:
        if not self._proxy.links.closing.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._ask(body)
                self._proxy.links.on_step(step, Moment.COMMITTED)

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        with contextlib.closing(self._connect()) as upstream:
            upstream.request(self.command, self.path, body or None, self._own_headers())
            with upstream.getresponse() as response:
                return response.status, response.read()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._proxy.member, timeout=_UPSTREAM_S)

    def _own_headers(self) -> dict[str, str]:
        return {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}

    def _stream(self, body: bytes) -> None:
        """Pass a watch on as it comes, until one of the two goes."""
        self.close_connection = True
        with contextlib.closing(self._connect()) as upstream:
            upstream.request(self.command, self.path, body or None, self._own_headers())
            assert upstream.sock is not None
            upstream.sock.settimeout(None)
            ended = threading.Thread(target=self._until_sender_goes, args=(upstream.sock,))
            ended.daemon = True
            ended.start()
            with upstream.getresponse() as response:
                self.send_response_only(response.status, response.reason)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while data := response.read1(65536):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")

    def _until_sender_goes(self, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)

    def _hang(self, step: Step) -> None:
        """Until the sender gives up, or all is let pass again."""
        self.close_connection = True
        proxy = self._proxy
        with proxy.links.hanging(step), proxy.hanging(self.connection):
            while not proxy.links.closing.is_set():
                if select.select([self.connection], [], [], 0.05)[0]:
                    return

    def _answer(self, status: int, body: bytes, *, half: bool = False) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if half:
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep still."""
