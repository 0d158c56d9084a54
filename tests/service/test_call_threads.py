"""Calls in threads of their own: nobody takes all of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ds01d.service.call_threads import MAX_LONG_PER_UID, MAX_SHORT_PER_UID, CallThreads
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import MethodCall


class Calls:
    """Calls that last until `may_end`. `replies`: the answers, by uid."""

    def __init__(self) -> None:
        self.threads = CallThreads(lambda error: unavailable(str(error)))
        self.may_end = threading.Event()
        self.replies: list[tuple[int, dict[str, Any]]] = []

    def start(self, uid: int, *, is_long: bool = False) -> PendingCall:
        peer = Peer(uid=uid, login=str(uid), pid=7, is_operator=False)
        call = PendingCall(
            peer,
            MethodCall(method="a.b"),
            lambda message, _: self.replies.append((uid, json.loads(message[:-1]))),
        )
        self.threads.start_call(call, lambda _: self.may_end.wait(30) and {}, is_long=is_long)
        return call


@pytest.fixture
def calls() -> Iterator[Calls]:
    calls = Calls()
    yield calls
    calls.may_end.set()
    calls.threads.join_threads()


@pytest.mark.parametrize(
    ("is_long", "most"), [(False, MAX_SHORT_PER_UID), (True, MAX_LONG_PER_UID)]
)
def test_who_disconnects_and_calls_again_takes_no_thread_of_others(
    calls: Calls, is_long: bool, most: int
) -> None:
    """A stop that waits an hour for its container goes on without its caller."""
    for _ in range(20):
        calls.start(1001, is_long=is_long).withdraw()
    assert len(calls.replies) == 20 - most
    for uid, refused in calls.replies:
        assert (uid, f"{most} " in refused["parameters"]["reason"]) == (1001, True)
    calls.start(1002, is_long=is_long)
    calls.may_end.set()
    calls.threads.join_threads()
    assert (1002, {"parameters": {}}) in calls.replies
