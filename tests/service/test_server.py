"""The socket with real peers: patient ones, slow ones, hostile ones. Nobody delays anybody else."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ds01d.service.admission import (
    MAX_CALLS_PER_MINUTE,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_UID,
)
from ds01d.service.client import INTERFACE
from ds01d.service.listening import listen_at
from ds01d.service.requests import PendingCall, RequestQueue
from ds01d.service.rules import Peer, unavailable
from ds01d.service.server import BookingServer
from tests.support.books import until

ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)
ECHO = "io.github.ds01.Booking.Echo"


class Server:
    """A served socket whose worker is a thread that answers each call with its parameters."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self.path = folder / "s"
        self.served: list[PendingCall] = []
        self.may_serve = threading.Event()
        self.may_serve.set()
        self._called = threading.Event()
        self._over = False
        self.queue = RequestQueue(self._called.set)
        self.attach: Callable[[PendingCall], None] = lambda _: None
        self.identify: Callable[[socket.socket], Peer] = lambda _: ALICE
        self.server = BookingServer([listen_at(self.path)], self._identify, self, **limits)
        self._worker = threading.Thread(target=self._work, daemon=True)

    def _identify(self, peer: socket.socket) -> Peer:
        return self.identify(peer)

    def list_interfaces(self) -> tuple[str, ...]:
        return (INTERFACE,)

    def submit(self, request: PendingCall) -> None:
        self.queue.submit(request)

    def start(self) -> None:
        self.server.start()
        self._worker.start()

    def close(self) -> None:
        self._over = True
        self.may_serve.set()
        self._called.set()
        self._worker.join(10)
        self.queue.close("the end")
        self.server.close()

    def _work(self) -> None:
        while not self._over:
            self._called.wait()
            self._called.clear()
            self.may_serve.wait()
            for request in self.queue.take_requests():
                self.served.append(request)
                self.attach(request)
                request.finish({"given": json.loads(bytes(request.call.parameters))})

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.connect(
            str(self.path)
        )  # waits for room in the backlog, as one with a time limit would not
        peer.settimeout(60)
        return peer


@pytest.fixture
def limits() -> dict[str, float]:
    return {}


@pytest.fixture(autouse=True)
def root_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root is hardly limited; these tests run as root, and want the limits of a user."""
    monkeypatch.setattr("ds01d.service.server.read_credentials", lambda _: (7, 1001))


@pytest.fixture
def server(tmp_path: Path, limits: dict[str, float]) -> Iterator[Server]:
    served = Server(tmp_path, **limits)
    served.start()
    yield served
    served.close()


def send_call(peer: socket.socket, method: str = ECHO, **parameters: object) -> None:
    peer.sendall(json.dumps({"method": method, "parameters": parameters}).encode() + b"\0")


def read_reply(peer: socket.socket) -> dict[str, Any] | None:
    """One reply; None if the connection was closed."""
    data = b""
    while not data.endswith(b"\0"):
        try:
            byte = peer.recv(1)
        except ConnectionResetError:
            return None
        if not byte:
            return None
        data += byte
    reply: dict[str, Any] = json.loads(data[:-1])
    return reply


def call(peer: socket.socket, method: str = ECHO, **parameters: object) -> dict[str, Any] | None:
    send_call(peer, method, **parameters)
    return read_reply(peer)


def test_several_calls_on_one_connection(server: Server) -> None:
    with server.connect() as peer:
        assert call(peer, n=1) == {"parameters": {"given": {"n": 1}}}
        assert call(peer, n=2) == {"parameters": {"given": {"n": 2}}}


def test_calls_sent_at_once_are_answered_in_order(server: Server) -> None:
    with server.connect() as peer:
        for number in range(5):
            send_call(peer, n=number)
        replies = [read_reply(peer) for _ in range(5)]
    assert [reply and reply["parameters"]["given"]["n"] for reply in replies] == [0, 1, 2, 3, 4]


def test_a_message_in_pieces(server: Server) -> None:
    with server.connect() as peer:
        for byte in json.dumps({"method": ECHO, "parameters": {}}).encode() + b"\0":
            peer.send(bytes([byte]))
        assert read_reply(peer) == {"parameters": {"given": {}}}


def test_the_service_describes_itself(server: Server) -> None:
    with server.connect() as peer:
        info = call(peer, "org.varlink.service.GetInfo")
        assert info is not None
        assert "io.github.ds01.Booking" in info["parameters"]["interfaces"]
        for interface in info["parameters"]["interfaces"]:
            described = call(
                peer, "org.varlink.service.GetInterfaceDescription", interface=interface
            )
            assert described is not None
            assert f"interface {interface}" in described["parameters"]["description"]
    assert not server.served


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("org.varlink.service.Nothing", {}, "org.varlink.service.MethodNotFound"),
        ("other.Interface.Call", {}, "org.varlink.service.InterfaceNotFound"),
        ("Call", {}, "org.varlink.service.InterfaceNotFound"),
        (
            "org.varlink.service.GetInterfaceDescription",
            {"interface": "x.y"},
            "org.varlink.service.InterfaceNotFound",
        ),
        ("org.varlink.service.GetInfo", {"x": 1}, "org.varlink.service.InvalidParameter"),
    ],
)
def test_what_does_not_exist(
    server: Server, method: str, parameters: dict[str, object], error: str
) -> None:
    with server.connect() as peer:
        reply = call(peer, method, **parameters)
        assert reply is not None
        assert reply["error"] == error
        assert call(peer) == {"parameters": {"given": {}}}


def test_a_call_that_wants_no_reply_gets_none(server: Server) -> None:
    with server.connect() as peer:
        peer.sendall(json.dumps({"method": ECHO, "oneway": True}).encode() + b"\0")
        assert call(peer, n=2) == {"parameters": {"given": {"n": 2}}}
    assert len(server.served) == 2


@pytest.mark.parametrize(
    "message",
    [
        b"\0",
        b"no json\0",
        b'{"method": 5}\0',
        b'{"method": "\xff\xfe"}\0',
        b"[" * 60_000 + b"\0",
        b"x" * (1 << 20),
        b'{"method": "' + b"a" * (70 << 10) + b'"}\0',
    ],
    ids=["empty", "text", "type", "encoding", "nesting", "endless", "too long"],
)
def test_what_is_no_message_ends_the_connection(server: Server, message: bytes) -> None:
    with server.connect() as peer:
        try:
            peer.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            assert read_reply(peer) is None
    with server.connect() as other:
        assert call(other) == {"parameters": {"given": {}}}


class TestTimes:
    @pytest.fixture
    def limits(self) -> dict[str, float]:
        return {"send_s": 0.3, "idle_s": 4.0, "serve_s": 2.0}

    @pytest.mark.parametrize("sent", [b"", b"{", b'{"method": "a.b"'])
    def test_who_sends_nothing_or_half_a_message_is_disconnected(
        self, server: Server, sent: bytes
    ) -> None:
        with server.connect() as peer:
            peer.sendall(sent)
            assert read_reply(peer) is None

    def test_a_call_that_nobody_serves_fails_and_is_never_made(self, server: Server) -> None:
        server.may_serve.clear()
        with server.connect() as peer:
            reply = call(peer, n=1)
            assert reply is not None
            assert "was not served" in reply["parameters"]["reason"]
            server.may_serve.set()
            assert call(peer, n=2) == {"parameters": {"given": {"n": 2}}}
        assert [bytes(request.call.parameters) for request in server.served] == [b'{"n": 2}']

    def test_who_never_reads_is_disconnected(self, server: Server) -> None:
        with server.connect() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            until(lambda: _is_disconnected(peer), what="the peer to be disconnected")
        with server.connect() as other:
            assert call(other) == {"parameters": {"given": {}}}


def attach_too_late(request: PendingCall, stream: socket.socket) -> None:
    request.withdraw()
    request.attach_stream(stream)


class TestStreams:
    """What comes with a reply: a descriptor, or what a stream has."""

    @pytest.fixture
    def pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        with ours, theirs:
            yield ours, theirs

    def test_a_descriptor(self, server: Server, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        server.attach = lambda request: request.attach_stream(theirs)
        with server.connect() as peer:
            send_call(peer, x=1)
            data, (descriptor,), _, _ = socket.recv_fds(peer, 1, 4)
            reply = data + peer.recv(1000)
            assert json.loads(reply[:-1]) == {"parameters": {"given": {"x": 1}}}
            with socket.socket(fileno=descriptor) as stream:
                stream.sendall(b"words")
                assert ours.recv(100) == b"words"
            assert ours.recv(100) == b""  # the service has kept nothing
            server.attach = lambda _: None
            assert call(peer) is not None

    @pytest.mark.parametrize("end", ["oneway", "gone", "before"])
    def test_nobody_takes_it(
        self, server: Server, pair: tuple[socket.socket, socket.socket], end: str
    ) -> None:
        _, theirs = pair
        server.attach = lambda request: request.attach_stream(theirs)
        with server.connect() as peer:
            if end == "oneway":
                peer.sendall(json.dumps({"method": ECHO, "oneway": True}).encode() + b"\0")
            else:
                server.may_serve.clear()
                send_call(peer)
                until(lambda: server.queue.has_requests)
                if end == "gone":  # between the look whether it is there, and the reply
                    server.attach = lambda request: attach_too_late(request, theirs)
                    server.may_serve.set()
                else:
                    peer.close()
                    server.may_serve.set()
                    time.sleep(0.2)  # it is never served
                    theirs.close()
            until(lambda: theirs.fileno() == -1)

    def test_what_a_stream_has(
        self, server: Server, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        ours, theirs = pair
        server.attach = lambda request: request.attach_stream(
            theirs, lambda data: {"size": len(data)}
        )
        with server.connect() as peer, server.connect() as other:
            send_call(peer)
            ours.sendall(b"x" * 1_000_000)
            server.attach = lambda _: None
            assert call(other) is not None
            ours.close()
            sizes = []
            while (reply := read_reply(peer)) is not None and reply.get("continues"):
                sizes.append(reply["parameters"]["size"])
            assert reply == {"parameters": {"given": {}}}
            assert sum(sizes) == 1_000_000
            assert max(sizes) <= 32 << 10
        assert theirs.fileno() == -1

    def test_a_peer_that_reads_nothing_stops_its_stream(
        self, server: Server, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        ours, theirs = pair
        server.attach = lambda request: request.attach_stream(
            theirs, lambda data: {"data": "y" * 40_000}
        )
        with server.connect() as peer:
            send_call(peer)
            ours.setblocking(False)
            sent, refused_at = 0, 0.0
            while not refused_at or time.monotonic() - refused_at < 1:
                try:
                    sent += ours.send(b"x" * 32768)
                    refused_at = 0.0
                except BlockingIOError:
                    refused_at = refused_at or time.monotonic()
                    time.sleep(0.05)
                assert sent < 8 << 20, "nothing holds it back"
        until(lambda: theirs.fileno() == -1)  # and the peer's end is seen

    def test_the_peer_of_a_quiet_stream_leaves(
        self, server: Server, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        _, theirs = pair
        server.attach = lambda request: request.attach_stream(theirs, lambda data: {})
        with server.connect() as peer:
            send_call(peer)
            until(lambda: server.served)
        until(lambda: theirs.fileno() == -1)


def _is_disconnected(peer: socket.socket) -> bool:
    """Send one more call, and read nothing."""
    try:
        send_call(peer, text="x" * 50_000)
    except OSError:
        return True
    return False


def test_a_call_whose_peer_left_before_is_not_made(server: Server) -> None:
    server.may_serve.clear()
    with server.connect() as first, server.connect() as second:
        send_call(first, n=1)
        until(lambda: server.queue.has_requests)
        send_call(second, n=2)
        until(lambda: len(server.queue._queued) == 2)
        first.close()
        until(lambda: not server.queue._queued[0].is_open, what="the first peer to be gone")
        server.may_serve.set()
        assert read_reply(second) == {"parameters": {"given": {"n": 2}}}
    assert len(server.served) == 1


def test_a_peer_who_left_a_second_message_behind_is_missed(server: Server) -> None:
    server.may_serve.clear()
    blocker, peer = server.connect(), server.connect()
    send_call(blocker, n=0)
    for number in (1, 2):
        send_call(peer, n=number)
    until(lambda: len(server.queue._queued) == 2)
    peer.close()
    until(lambda: not server.queue._queued[1].is_open, what="the peer to be gone")
    server.may_serve.set()
    assert read_reply(blocker) == {"parameters": {"given": {"n": 0}}}
    blocker.close()
    assert [json.loads(bytes(request.call.parameters))["n"] for request in server.served] == [0]


def test_who_may_not_connect_gains_nothing_by_waiting(server: Server) -> None:
    refused = threading.Event()

    def refuse(_: socket.socket) -> Peer:
        refused.set()
        raise unavailable("in a container")

    server.identify = refuse
    with server.connect() as peer:
        assert refused.wait(10)
        server.identify = lambda _: ALICE
        answer = read_reply(peer)
        assert read_reply(peer) is None
    assert answer is not None
    assert answer["parameters"] == {"reason": "in a container"}


def test_a_right_that_is_lost_ends_with_the_call(server: Server) -> None:
    with server.connect() as peer:
        assert call(peer, n=1) == {"parameters": {"given": {"n": 1}}}

        def refuse(_: socket.socket) -> Peer:
            raise unavailable("no longer")

        server.identify = refuse
        refused = call(peer, n=2)
    assert refused is not None
    assert refused["parameters"] == {"reason": "no longer"}


def test_too_many_connections_of_one_uid(server: Server) -> None:
    with ExitStack() as open_peers:
        peers = [open_peers.enter_context(server.connect()) for _ in range(MAX_CONNECTIONS_PER_UID)]
        assert all(call(peer) for peer in peers)
        with server.connect() as one_more:
            reply = read_reply(one_more)
            assert reply is not None
            assert "connections open" in reply["parameters"]["reason"]
            assert read_reply(one_more) is None
        peers[0].close()
        until(lambda: _answers(server), what="room for another connection")


def test_uids_without_a_login_take_no_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as newuidmap(1) gives to one user."""

    def refuse(_: socket.socket) -> Peer:
        raise unavailable("no login")

    uids = itertools.count(100_000)
    monkeypatch.setattr("ds01d.service.server.read_credentials", lambda _: (7, next(uids)))
    server.identify = refuse
    with ExitStack() as open_peers:
        for _ in range(MAX_CONNECTIONS):
            reply = read_reply(open_peers.enter_context(server.connect()))
            assert reply is not None
            assert reply["parameters"] == {"reason": "no login"}
        server.identify = lambda _: ALICE
        until(lambda: _answers(server), what="room for a user")


def _answers(server: Server) -> bool:
    with server.connect() as peer:
        reply = call(peer)
        return reply is not None and "error" not in reply


def test_ten_thousand_connections_leave_no_trace(server: Server) -> None:
    for _ in range(10_000):
        server.connect().close()
    until(lambda: _answers(server))
    # Those that came before are let go each in its own time.
    until(lambda: server.server._admission._open.total() <= 1, what=server.server._admission._open)


def test_many_connections_at_once_take_few_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_descriptors() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    served, counts = Server(tmp_path), []
    admission = served.server._admission
    open_connection = admission.open_connection

    def count(uid: int) -> str:
        counts.append(count_descriptors())
        return open_connection(uid)

    monkeypatch.setattr(admission, "open_connection", count)
    with ExitStack() as stack:
        for _ in range(120):
            stack.enter_context(served.connect())
        before = count_descriptors()
        served.start()
        until(lambda: len(counts) == 120)
    served.close()
    assert max(counts) - before < 90


def test_too_many_calls_in_a_minute(server: Server) -> None:
    with server.connect() as peer:
        replies = [call(peer) for _ in range(MAX_CALLS_PER_MINUTE + 1)]
    errors = [reply["error"] for reply in replies if reply and "error" in reply]
    assert errors == ["io.github.ds01.Booking.Unavailable"]
    assert len(server.served) == MAX_CALLS_PER_MINUTE


def test_a_user_database_that_hangs_delays_nobody_else(server: Server) -> None:
    release, asked = threading.Event(), threading.Event()

    def hang(_: socket.socket) -> Peer:
        asked.set()
        release.wait(30)
        raise unavailable("uid 1001 has no login here")

    server.identify = hang
    with server.connect() as slow:
        send_call(slow)
        assert asked.wait(30)
        server.identify = lambda _: ALICE
        with server.connect() as other:
            assert call(other) == {"parameters": {"given": {}}}
        release.set()
        reply = read_reply(slow)
    assert reply is not None
    assert reply["error"] == "io.github.ds01.Booking.Unavailable"


def test_the_end_fails_what_waits_and_disconnects(tmp_path: Path) -> None:
    served = Server(tmp_path)
    served.start()
    served.may_serve.clear()
    with served.connect() as peer, served.connect() as idle:
        send_call(peer)
        until(lambda: served.queue.has_requests)
        began = time.monotonic()
        served.queue.close("ds01d is stopping")
        reply = read_reply(peer)
        assert reply is not None
        assert reply["parameters"]["reason"] == "ds01d is stopping"
        served.close()
        assert read_reply(idle) is None
        assert time.monotonic() - began < 20
    assert served.path.is_socket()  # it is systemd's, who listens at it for the next ds01d


def test_who_answered_can_wait_until_the_reply_is_sent(server: Server) -> None:
    """The worker does, or its next pass would keep the interpreter from the thread that sends."""
    with server.connect() as peer:
        send_call(peer)
        assert read_reply(peer) is not None
        assert server.served[0].wait_sent(30)
    with server.connect() as peer:
        send_call(peer)
        until(lambda: len(server.served) == 2)
    until(lambda: server.served[1].wait_sent(30))  # also for a peer that has gone
