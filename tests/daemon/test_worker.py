"""The worker's thread: what ends its wait for work."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import Any, cast

from ds01d.daemon.dirty_set import DirtySet
from ds01d.daemon.publisher import PUBLISH_EVERY_S
from ds01d.daemon.timers import Timers
from ds01d.daemon.worker import Worker


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
