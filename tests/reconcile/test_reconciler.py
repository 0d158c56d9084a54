"""A pass as a whole: what it writes in which mode, and what it remembers first."""

from __future__ import annotations

from ds01d.model.drift import Outcome
from tests.support.build import NAME, OTHER, config
from tests.support.repairs import only, stale, state


def test_a_paced_release_needs_its_memory_first() -> None:
    one = stale()
    one.host.unwritable = {"memory"}
    report = one.sweep()
    assert only(report).outcome is Outcome.FAILED
    assert "memory" in only(report).reason
    assert one.host.bookings() == {(NAME, "1.0")}
    assert report.warnings


def test_what_is_not_paced_goes_on_without_memory() -> None:
    one = stale()
    one.run("MIG-0-0", name=OTHER)
    one.sweep()  # releases the first
    one.host.pass_time(6.0)
    one.host.unwritable = {"memory"}
    report = one.sweep()
    assert only(report).outcome is Outcome.DONE
    assert one.host.bookings() == {(OTHER, "0.0")}


def test_mode_observe_writes_nothing_but_its_memory() -> None:
    one = stale()
    one.config = config(mode="observe")
    before = state(one), dict(one.host.records), list(one.host.history), list(one.host.operations)
    report = one.sweep()
    assert only(report).outcome is Outcome.DUE
    assert not report.is_applied
    host = one.host
    assert (host.state, host.records, host.history, host.operations) == before
    assert host.memory is not None


def test_a_plan_writes_nothing_at_all() -> None:
    one = stale()
    before, steps = one.host.memory, one.host.steps
    assert only(one.plan()).outcome is Outcome.DUE
    assert (one.host.memory, one.host.steps) == (before, steps)
