"""The two logs of what a pass did; a log that fails stops nothing."""

from __future__ import annotations

import pytest

from ds01d.model.drift import Outcome
from tests.support.build import NAME
from tests.support.repairs import only, stale


@pytest.mark.parametrize("log", ["operations", "allocations"])
def test_logs_that_fail_stop_no_repair_and_are_reported(log: str) -> None:
    one = stale()
    one.host.unwritable = {log}
    report = one.sweep()
    assert only(report).outcome is Outcome.DONE
    assert any(log in trouble for trouble in report.warnings)
    assert one.host.bookings() == set()


def test_what_was_released_can_be_read_in_both_logs() -> None:
    one = stale()
    one.sweep()
    assert [line.split("|")[:4] for line in one.host.allocations] == [
        ["RELEASED", "alice", NAME, "1.0"]
    ]
    (line,) = one.host.operations
    assert (line.operation, line.container, line.status) == ("release", NAME, "done")
