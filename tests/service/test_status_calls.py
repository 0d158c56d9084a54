"""Who follows the status: at once, then once a second at most, and always the newest."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ds01d.model.primitives import Wall
from ds01d.reporting.status import Pace, Status
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import serve_call
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.status_calls import StatusCalls
from ds01d.service.varlink import MethodCall

ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)


def status(number: int) -> Status:
    return Status(
        written_at=Wall(float(number)),
        pid=1,
        version="1",
        mode="repair",
        ready=True,
        engine_trusted=True,
        sources={},
        pace=Pace(used=0, limit=0, window_s=1.0),
    )


@dataclass
class Following:
    """A peer that reads when it is asked to."""

    calls: StatusCalls
    more: bool = True
    queued: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        call = MethodCall(method=f"{INTERFACE}.Status", more=self.more)
        self.request = PendingCall(ALICE, call, lambda message, _: self.queued.append(message))
        serve_call(self.request, self.calls.handlers)

    def read(self) -> list[float]:
        """When each status was written that is there to read."""
        messages = [message or self.request.take_offer() for message in self.queued]
        self.queued.clear()
        replies: list[dict[str, Any]] = [json.loads(m.rstrip(b"\0")) for m in messages]
        return [reply["parameters"]["status"]["written_at"] for reply in replies]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_more_it_is_one_answer() -> None:
    peer = Following(StatusCalls(lambda: status(1)), more=False)
    assert peer.read() == [1.0]
    assert not peer.request.is_open


def test_changes_come_once_a_second() -> None:
    clock = Clock()
    calls = StatusCalls(lambda: status(1), clock)
    assert calls.wait_s() == math.inf
    peer = Following(calls)
    assert peer.read() == [1.0]
    calls.publish(status(2))
    calls.send_if_due()
    assert peer.read() == [2.0]
    clock.now = 0.4
    for number in (3, 4):
        calls.publish(status(number))
        calls.send_if_due()
    assert peer.read() == []
    assert calls.wait_s() == 0.6
    clock.now = 1.0
    calls.send_if_due()
    assert peer.read() == [4.0]
    assert calls.wait_s() == math.inf


def test_a_slow_reader_gets_the_newest_and_keeps_one() -> None:
    clock = Clock()
    calls = StatusCalls(lambda: status(1), clock)
    slow, quick = Following(calls), Following(calls)
    assert quick.read() == [1.0]
    for number in range(2, 100):
        clock.now += 1.0
        calls.publish(status(number))
        calls.send_if_due()
        assert quick.read() == [float(number)]
    assert len(slow.queued) == 1
    assert slow.read() == [99.0]


def test_who_is_gone_is_forgotten() -> None:
    calls = StatusCalls(lambda: status(1), Clock())
    gone, left = Following(calls), Following(calls)
    gone.request.withdraw()
    calls.publish(status(2))
    calls.send_if_due()
    assert calls._followers == [left.request]
    calls.fail_all("ds01d is stopping")
    assert not left.request.is_open
    assert b"ds01d is stopping" in left.queued[-1]


def test_a_parameter_is_refused() -> None:
    sent: list[bytes] = []
    raw = msgspec.Raw(b'{"x":1}')
    call = MethodCall(method=f"{INTERFACE}.Status", parameters=raw, more=True)
    calls = StatusCalls(lambda: status(1))
    serve_call(PendingCall(ALICE, call, lambda message, _: sent.append(message)), calls.handlers)
    assert b"InvalidParameter" in sent[0]
