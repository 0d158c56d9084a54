"""The worker's thread: what ends its wait for work."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import Any, Final, cast

from ds01d.daemon.dirty_set import DirtySet
from ds01d.daemon.publisher import PUBLISH_EVERY_S
from ds01d.daemon.timers import Timers
from ds01d.daemon.worker import Worker
from ds01d.model.primitives import ContainerName, UserName
from ds01d.service.requests import PendingCall, RequestQueue
from ds01d.service.rules import Peer
from ds01d.service.varlink import MethodCall

NAME: Final = ContainerName("train._.1001")


def test_no_look_that_must_not_be_taken_yet_ends_a_wait() -> None:
    """Until the status is published the books are compared with nothing: that was a busy loop."""
    timers, nothing = Timers(print), cast("Any", None)
    worker = Worker(nothing, DirtySet(timers.schedule), timers, nothing, None)
    overdue = SimpleNamespace(wait_s=lambda: 0.0)

    def wait_s(*, has_changes: bool) -> float:
        builder = SimpleNamespace(has_changes=has_changes)
        session = SimpleNamespace(status_builder=builder, books_watch=overdue)
        return worker._find_status_wait(cast("Any", session))

    assert wait_s(has_changes=False) == inf  # no sweep was published to compare with
    assert wait_s(has_changes=True) == 0.0
    worker._publisher.is_ready, worker._publisher._published_at = True, inf
    assert wait_s(has_changes=True) >= PUBLISH_EVERY_S
    assert wait_s(has_changes=False) == 0.0


def test_who_calls_once_they_are_answered_is_served_after_the_pass() -> None:
    """The status of a machine that was busy had no booking that its caller had been told of."""
    dirty, nothing = DirtySet(print), cast("Any", None)
    queue = RequestQueue(dirty.wake)
    supervisor = cast("Any", SimpleNamespace(mark_progress=lambda: None))
    worker = Worker(nothing, dirty, Timers(print), supervisor, cast("Any", queue))
    served: list[str] = []
    changed = {NAME}

    def submit(method: str) -> None:
        queue.submit(
            PendingCall(
                Peer(uid=1001, login=UserName("amy"), pid=1, is_operator=False),
                MethodCall(method=method),
                lambda *_: None,
            )
        )

    def book(request: PendingCall) -> object:
        served.append("Book")
        request.finish({})
        submit("Status")
        return None

    def show(_: PendingCall) -> object:
        served.append("Status")
        return {}

    session = SimpleNamespace(
        bookings=SimpleNamespace(
            serve_reserved=lambda: None,
            serve_waiting_if_due=lambda: None,
            take_changed_names=lambda: frozenset(changed),
        ),
        update_fleet=lambda _: None,
        handlers={"Book": book, "Status": show},
        operations=SimpleNamespace(take_changes=lambda: False),
        reconciles=SimpleNamespace(wait_s=lambda: inf),
    )
    submit("Book")
    submit("Book")
    worker._serve_calls(cast("Any", session))
    assert served == ["Book", "Book"]
    work = dirty.take(0.0)
    assert work is not None
    assert work.names == {NAME}
    worker._serve_calls(cast("Any", session))
    assert served == ["Book", "Book", "Status", "Status"]
    assert not queue.has_requests
