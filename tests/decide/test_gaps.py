"""Time in which no pass was made proves nothing, whatever CLOCK_BOOTTIME says.

The host was suspended, ds01d was stopped (SIGSTOP), or a virtual machine went on from a snapshot.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.gaps import watched_end
from ds01d.model.books import AllocatorState, Attempt
from ds01d.model.containers import State
from ds01d.model.drift import Kind, Outcome, WaitReason
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import Boot, UserName, Wall
from tests.support.build import HOUR, LIMITS, NAME, OTHER, Life, config, slot

GAP = 3 * HOUR
SETTLE, FREEZE, CREATION = 5.0, 120.0, 900.0


def life(freeze_s: float = FREEZE) -> Life:
    return Life(config(freeze_s=freeze_s)).book("1.0").run("MIG-1-0").after(HOUR)


def sleep(one: Life, seconds: float = GAP) -> Life:
    """Nobody looks for so long; both clocks go on."""
    one.host.pass_time(seconds)
    return one


def awake(one: Life, seconds: float) -> Life:
    """Passes as the daemon makes them; the last one after so much time."""
    one.host.pass_time(seconds)
    one.sweep()
    return one


def slots(one: Life) -> set[str]:
    assert isinstance(one.host.state, AllocatorState)
    return {str(each) for each in one.host.state.slots}


def counted_wrong(one: Life) -> Life:
    assert isinstance(one.host.state, AllocatorState)
    wrong = slot("1.0", NAME, users={"alice": 3})
    one.host.state = replace(one.host.state, slots={**one.host.state.slots, wrong.id: wrong})
    return one


def test_a_drift_has_to_be_seen_for_the_settle_time() -> None:
    one = counted_wrong(life())
    one.sweep()
    (held,) = sleep(one).sweep().drifts
    assert (held.drift.kind, held.outcome, held.gate) == (
        Kind.WRONG_COUNT,
        Outcome.WAITING,
        WaitReason.SETTLE,
    )
    assert held.until == one.host.boot + SETTLE
    awake(one, SETTLE)
    assert one.sweep().is_consistent


def test_what_was_seen_before_the_gap_counts() -> None:
    one = counted_wrong(life())
    one.sweep()
    awake(one, 3.0)
    (held,) = sleep(one).sweep().drifts
    assert held.until == one.host.boot + SETTLE - 3.0


def test_a_layout_has_to_be_seen_for_the_freeze() -> None:
    one = life()
    one.set_gpu(migs=tuple(m for m in one.host.gpu.migs if m.uuid != "MIG-0-1"))  # type: ignore[union-attr]
    one.sweep()
    (held,) = sleep(one).sweep().drifts
    assert (held.drift.kind, held.gate) == (Kind.VANISHED_SLOT, WaitReason.INVENTORY)
    assert held.until == one.host.boot + FREEZE
    assert "0.1" in slots(one)
    one.after(FREEZE)
    assert "0.1" not in slots(one)


def test_a_layout_that_was_odd_before_and_after_the_gap_costs_nothing() -> None:
    one = life()
    healthy = one.host.gpu
    assert healthy is not None
    one.set_gpu(migs=tuple(m for m in healthy.migs if m.uuid != "MIG-0-1")).sweep()
    sleep(one).sweep()
    one.host.gpu = healthy
    one.after(HOUR)
    assert slots(one) == {"0.0", "0.1", "1.0", "1.1"}
    assert not any("MIG-0-1" in text for text in map(str, one.host.allocations))


def creating(one: Life) -> Life:
    """Booked and announced a moment ago; there is no container yet."""
    one.book("1.1", name=OTHER, allocated_at_ago=1.0)
    one.host.attempts[OTHER] = Attempt(started=Wall(one.host.wall - 1.0))
    one.sweep()
    return one


def test_a_creation_goes_on_where_it_stood() -> None:
    """An image that was being committed when the lid was closed has the rest of its 15 minutes."""
    one = creating(life()).after(300.0)
    sleep(one).after(500.0)
    assert (OTHER, "1.1") in one.host.bookings()
    sleep(one).after(CREATION - 60.0)
    assert (OTHER, "1.1") in one.host.bookings()
    one.after(CREATION)
    assert (OTHER, "1.1") not in one.host.bookings()


def test_a_creation_that_was_over_is_over() -> None:
    one = creating(life()).after(CREATION + 60.0)
    sleep(one).after(FREEZE)
    assert (OTHER, "1.1") not in one.host.bookings()


def test_an_absence_has_to_be_seen_for_its_grace() -> None:
    one = life().remove(told=False)
    one.sweep()
    sleep(one).sweep()
    assert (NAME, "1.0") in one.host.bookings()
    one.after(FREEZE)
    assert (NAME, "1.0") not in one.host.bookings()


def test_a_hold_is_a_promise_of_time_and_goes_on() -> None:
    """But who would restart the container has the absence grace for it."""
    one = life().stop(state=State.EXITED)
    one.sweep()
    sleep(one).sweep()
    assert (NAME, "1.0") in one.host.bookings()
    one.after(FREEZE + 60.0)
    assert (NAME, "1.0") not in one.host.bookings()


def test_limits_have_to_be_seen_for_as_long_as_without_the_gap() -> None:
    one = life(freeze_s=600.0).stop(state=State.EXITED)
    hold = HoldRule(seconds=None, source="groups.students")
    one.host.limits = replace(LIMITS, holds={UserName("alice"): hold}, version="1", size=100)
    one.after(HOUR)
    one.host.limits = replace(LIMITS, version="2", size=10)
    one.sweep()
    sleep(one).after(FREEZE)
    assert (NAME, "1.0") in one.host.bookings(), "cut short, perhaps: it has the freeze's time"
    one.after(600.0)
    assert (NAME, "1.0") not in one.host.bookings()


@pytest.mark.parametrize("seconds", [60.0, 239.0])
def test_a_late_sweep_is_no_gap(seconds: float) -> None:
    one = counted_wrong(life())
    one.sweep()
    sleep(one, seconds).sweep()
    assert one.sweep().is_consistent


def test_a_pass_that_stood_still_writes_nothing() -> None:
    """What it saw is as old as that; the next pass looks again."""
    one = life().remove(told=True)
    one.sweep()
    one.host.pass_time(SETTLE)
    # Decision 255: with a `destroy` event the look right before the write is the only one.
    looks = iter((GAP,))
    one.host.on_look = lambda _: one.host.pass_time(next(looks, 0.0))
    report = one.sweep()
    assert (NAME, "1.0") in one.host.bookings()
    assert [d.outcome for d in report.drifts] == [Outcome.WAITING]
    assert f"snapshot is {GAP:.0f} s old" in report.drifts[0].reason
    one.after(FREEZE)
    assert (NAME, "1.0") not in one.host.bookings()


moment = st.floats(0, 1e6).map(Boot)


@given(start=moment, length=st.floats(0, 1e5), cuts=st.lists(st.floats(0, 1e6), max_size=8))
def test_of_a_wait_only_the_time_of_gaps_is_left_out(
    start: Boot, length: float, cuts: list[float]
) -> None:
    edges = sorted(cuts)
    gaps = [(Boot(a), Boot(b)) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    end = watched_end(start, length, gaps)
    slept = sum(b - a for a, b in gaps if start <= a < end)
    assert end == pytest.approx(start + length + slept)
