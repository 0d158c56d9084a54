"""The listener: what it answers, and that nobody who connects can harm the daemon."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from ds01d.reporting.http_server import MAX_CLIENTS
from ds01d.reporting.metrics_server import MetricsServer
from tests.support.books import until
from tests.support.metrics import fetch

HOST = "127.0.0.1"


def nothing(reason: str) -> None:
    """Hears what works and what does not."""


@contextmanager
def listening(
    body: bytes = b"a 1\n", host: str = HOST, *, patience_s: float = 5.0
) -> Iterator[int]:
    listener = MetricsServer((host, 0), lambda: body, nothing, patience_s=patience_s)
    listener.start()
    try:
        yield until(lambda: listener.port)
    finally:
        listener.close()


def clients(port: int) -> int:
    """How many connections the server has open, as the kernel has it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    local = f":{port:04X}"
    return sum(row[1].endswith(local) and row[3] in ("01", "08") for row in rows)


def threads() -> int:
    """How many threads serve clients."""
    return sum(thread.name.startswith("waitress") for thread in threading.enumerate())


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=60)


def test_it_has_metrics_and_a_pointer_to_them_and_nothing_else() -> None:
    with listening() as port:
        assert fetch(port) == (200, b"a 1\n")
        assert fetch(port, "/metrics?x=1") == (200, b"a 1\n")
        assert fetch(port, method="HEAD") == (200, b"")
        assert fetch(port, "/") == (200, b"ds01d: see /metrics\n")
        assert fetch(port, "/metrics/../etc/passwd")[0] == 404
        assert fetch(port, method="POST")[0] == 501


def test_metrics_that_cannot_be_made_are_an_error_for_the_client() -> None:
    with listening(body=b"") as port:
        assert fetch(port) == (500, b"")


def test_it_listens_on_ipv6() -> None:
    with listening(host="::1") as port:
        assert fetch(port, host="::1") == (200, b"a 1\n")


def is_served(port: int) -> bool:
    """Whether somebody who asks in time gets the answer; on a busy machine one may be too late."""
    try:
        return fetch(port) == (200, b"a 1\n")
    except (OSError, http.client.HTTPException):
        return False


def test_who_says_nothing_or_little_is_cut_off_and_keeps_nobody_waiting() -> None:
    def dribble() -> bool:
        """A byte now and then must not keep it alive; whether it is cut off."""
        try:
            slow.sendall(b"r")
        except OSError:
            return True
        return False

    with listening(patience_s=0.3) as port, connect(port) as silent, connect(port) as slow:
        slow.sendall(b"GET /met")
        until(lambda: is_served(port), what="an answer to others")
        until(dribble, 10, what="being cut off")
        assert silent.recv(1) == b""
        until(lambda: clients(port) == 0, what="the connections to end")


def test_who_does_not_read_is_cut_off() -> None:
    with listening(body=b"x" * (64 << 20), patience_s=0.3) as port, connect(port) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        until(lambda: clients(port) == 1, what="a client")
        until(lambda: clients(port) == 0, what="the connection to end")


def test_a_crowd_makes_no_threads_and_shuts_nobody_out() -> None:
    with ExitStack() as stack:
        port = stack.enter_context(listening(patience_s=30.0))
        crowd = [stack.enter_context(connect(port)) for _ in range(138)]
        for client in crowd[-MAX_CLIENTS // 2 :]:
            client.sendall(b"GET /met")
        assert fetch(port) == (200, b"a 1\n")
        until(lambda: clients(port) <= MAX_CLIENTS, what=lambda: f"few: {clients(port)}")
        until(lambda: threads() == 1, what="one thread alone")
    until(lambda: threads() == 0, what="the thread to end")


def test_a_crowd_that_does_not_read_shuts_nobody_out() -> None:
    with ExitStack() as stack:
        port = stack.enter_context(listening(body=b"x" * (8 << 20), patience_s=30.0))
        for _ in range(20):
            stack.enter_context(connect(port)).sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 100)
        assert fetch(port) == (200, b"x" * (8 << 20))


def test_a_connection_has_one_answer() -> None:
    with listening() as port, connect(port) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 100)
        received = b"".join(iter(lambda: client.recv(1 << 16), b""))
        assert received.count(b"HTTP/1.1 200 OK") == 1


@pytest.mark.parametrize(
    "noise", [b"\x00" * 100_000, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"]
)
def test_noise_harms_nobody(noise: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with listening(patience_s=0.3) as port:
        with connect(port) as client:
            client.sendall(noise)
        until(lambda: is_served(port), what="an answer to others")
        until(lambda: clients(port) == 0, what="the connections to end")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "count"), [(b"X: " + b"x" * 60_000 + b"\r\n", 99), (b"X: x\r\n" * 100, 1_000_000)]
)
def test_no_client_makes_it_keep_much(
    line: bytes, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    taken = 0
    with listening(patience_s=5.0) as port, connect(port) as client:
        client.sendall(b"GET / HTTP/1.0\r\n")
        with suppress(OSError):
            while taken < count * len(line):
                client.sendall(line)
                taken += len(line)
    assert taken < count * len(line)
    assert capfd.readouterr() == ("", "")


def test_many_who_ask_at_once_get_the_same_rendering() -> None:
    made: list[int] = []

    def render() -> bytes:
        made.append(1)
        return b"a 1\n"

    listener = MetricsServer((HOST, 0), render, nothing)
    listener.start()
    port = until(lambda: listener.port)
    assert {fetch(port) for _ in range(20)} == {(200, b"a 1\n")}
    listener.close()
    assert len(made) < 20


def test_a_port_that_is_taken_is_tried_again_and_told_as_long() -> None:
    told: list[str] = []
    with socket.create_server((HOST, 0)) as other:
        address = (HOST, int(other.getsockname()[1]))
        listener = MetricsServer(address, lambda: b"a 1\n", told.append, retry_s=0.05)
        listener.start()
        until(lambda: len(told) > 1, what="being told twice")
        assert all("in use" in reason for reason in told)
        assert listener.port is None
    port = until(lambda: listener.port)
    assert fetch(port) == (200, b"a 1\n")
    listener.close()
    assert told[-1] == ""


def test_a_host_that_is_none_is_told() -> None:
    told: list[str] = []
    listener = MetricsServer(("a..b", 9464), lambda: b"", told.append)
    listener.start()
    assert until(lambda: told)[0]
    listener.close()


def test_closing_frees_the_port_at_once_whoever_is_there() -> None:
    with listening(patience_s=30.0) as port, connect(port) as client:
        until(lambda: clients(port) == 1, what="a client")
        began = time.monotonic()
    assert time.monotonic() - began < 20, "sooner than a client is given up"
    assert client.fileno() == -1
    until(lambda: threads() == 0, what="the thread to end")
    with socket.create_server((HOST, port)):
        pass
