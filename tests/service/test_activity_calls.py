"""Who waits and what was done last: in order, and for operators and the web page alone."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ds01d.model.books import LogLine
from ds01d.model.primitives import ContainerName, UserName, Wall
from ds01d.service.activity_calls import ActivityCalls
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import serve_call
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.varlink import MethodCall
from ds01d.service.waiting import Waiter, WaitingQueue

ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)
OLGA = Peer(uid=1009, login="olga", pid=9, is_operator=True)
PAGE = Peer(uid=999, login="ds01d-web", pid=8, is_operator=False)
LINE = LogLine(
    at=Wall(0.0), operation="start", user="bob", container="x", gpu="0", status="done", details=""
)


def make_call(peer: Peer, **parameters: object) -> tuple[PendingCall, list[bytes]]:
    replies: list[bytes] = []
    raw = msgspec.Raw(json.dumps(parameters).encode())
    call = MethodCall(method=f"{INTERFACE}.Activity", parameters=raw)
    return PendingCall(peer, call, lambda message, _: replies.append(message)), replies


def ask(calls: ActivityCalls, peer: Peer, **parameters: object) -> dict[str, Any]:
    request, replies = make_call(peer, **parameters)
    serve_call(request, calls.handlers)
    reply: dict[str, Any] = json.loads(replies[0].rstrip(b"\0"))
    return reply


def make_waiter(name: str, rank: int) -> Waiter:
    return Waiter(
        request=make_call(ALICE)[0],
        user=UserName("alice"),
        container=ContainerName(name),
        slot=None,
        most=None,
        priority=None,
        another=False,
        rank=rank,
        reason="USER_AT_LIMIT (2/2)",
    )


@pytest.mark.parametrize("peer", [OLGA, PAGE], ids=lambda peer: str(peer.login))
def test_those_who_wait_come_in_order_with_the_newest_lines(peer: Peer) -> None:
    queue, asked = WaitingQueue(), []

    def read_log(most: int) -> list[LogLine]:
        asked.append(most)
        return [LINE]

    gone = make_waiter("gone", 3)
    for waiter in (make_waiter("later", 1), make_waiter("first", 2), gone):
        queue.add_waiter(waiter)
    gone.request.withdraw()
    shown = ask(ActivityCalls(queue, read_log), peer, most=7)["parameters"]
    assert [(w["position"], w["container"]) for w in shown["waiting"]] == [
        (1, "first"),
        (2, "later"),
    ]
    assert shown["log"][0]["at"] == "1970-01-01T00:00:00+00:00"
    assert shown["log"][0]["user"] == "bob"
    assert asked == [7]


def test_everybody_else_is_refused_before_anything_is_read() -> None:
    def read_log(_: int) -> list[LogLine]:
        raise AssertionError("nobody may see it")

    reply = ask(ActivityCalls(WaitingQueue(), read_log), ALICE)
    assert reply["error"].endswith(".NotPermitted")
    assert "ds01d-web" in reply["parameters"]["needs"]
