"""Bookings for code inside the daemon, against a worker that a test plays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.primitives import ContainerName, SlotId, UserName
from ds01d.service.booking_messages import encode_booking
from ds01d.service.client import STOPPING
from ds01d.service.exchange import ServiceRefused, ServiceUnanswered
from ds01d.service.internal_calls import WorkerAllocator
from ds01d.service.requests import PendingCall, RequestQueue
from ds01d.service.rules import Peer, refused, unavailable
from tests.support.books import until

AMY = Peer(uid=2001, login="amy", pid=7, is_operator=False)
BOOKED = Allocated(
    container=ContainerName("a._.2001"),
    user=UserName("amy"),
    slot=SlotId("1.0"),
    docker_id="MIG-1",
    priority=1,
)
PLACE = {"position": 1, "ahead": 0, "next_hold_end": None, "reason": "full"}


class Caller:
    """A thread that books, and the queue of the worker that it waits for."""

    def __init__(self, *, waits: bool = False) -> None:
        self.queue = RequestQueue(lambda: None)
        self.allocator = WorkerAllocator(AMY, self.queue.submit)
        self.places: list[object] = []
        self.answer: object = None
        on_waiting: Callable[[Any], None] | None = self.places.append if waits else None
        self._thread = threading.Thread(target=self._book, args=(on_waiting,), daemon=True)
        self._thread.start()

    def _book(self, on_waiting: Callable[[Any], None] | None) -> None:
        try:
            self.answer = self.allocator.allocate(
                UserName("amy"), ContainerName("a._.2001"), on_waiting=on_waiting
            )
        except Ds01Error as error:
            self.answer = error

    def take(self) -> PendingCall:
        """The next call, as the worker takes it."""
        until(lambda: self.queue.has_requests)
        request = next(self.queue.take_requests())
        assert request.peer is AMY
        return request

    def wait(self) -> object:
        self._thread.join(60)
        return self.answer


def booking() -> dict[str, object]:
    return {"booking": encode_booking(BOOKED), "waiting": None}


def test_a_booking_and_a_refusal() -> None:
    caller = Caller()
    caller.take().finish(booking())
    answer = caller.wait()
    assert isinstance(answer, Allocated)
    assert answer.slot == "1.0"
    caller = Caller()
    caller.take().fail(refused("USER_AT_LIMIT", "2/2"))
    answer = caller.wait()
    assert isinstance(answer, Rejected)
    assert answer.reason == "USER_AT_LIMIT (2/2)"


def test_a_worker_that_stops() -> None:
    caller = Caller()
    until(lambda: caller.queue.has_requests)
    caller.queue.close(STOPPING)
    answer = caller.wait()
    assert isinstance(answer, ServiceRefused)
    assert STOPPING in str(answer)


def wait_for_place(caller: Caller) -> PendingCall:
    request = caller.take()
    request.send_progress({"booking": None, "waiting": PLACE})
    until(lambda: caller.places)
    return request


def test_a_wait_that_is_cancelled() -> None:
    caller = Caller(waits=True)
    request = wait_for_place(caller)
    caller.allocator.cancel_wait()
    assert not request.is_open
    caller.take().finish({"quota": {}})
    assert isinstance(caller.wait(), ServiceUnanswered)


def test_a_booking_that_is_made_while_the_wait_is_cancelled_is_known() -> None:
    caller = Caller(waits=True)
    request = wait_for_place(caller)
    caller.allocator.cancel_wait()
    request.finish(booking())  # the worker had begun before it could see that
    caller.take().finish({"quota": {}})
    answer = caller.wait()
    assert isinstance(answer, Allocated)
    assert answer.container == "a._.2001"


@pytest.mark.parametrize("error", [unavailable("x"), refused("USER_AT_LIMIT")])
def test_a_wait_that_is_refused(error: Ds01Error) -> None:
    caller = Caller(waits=True)
    wait_for_place(caller).fail(error)  # type: ignore[arg-type]
    assert isinstance(caller.wait(), ServiceRefused | Rejected)
