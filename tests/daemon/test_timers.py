"""Timers: they ring once, in time, whatever the wall clock does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from ds01d.daemon.dirty_set import EVERYTHING, Names
from ds01d.daemon.timers import HEARTBEAT_S, Timers, validate_cron
from ds01d.errors import ConfigError
from ds01d.model.primitives import ContainerName

A, B = frozenset({ContainerName("a")}), frozenset({ContainerName("b")})


class Clocks:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.boot = 1000.0
        self.wall = datetime(2024, 5, 1, 12, 0, 30, tzinfo=timezone.utc)

    def pass_by(self, seconds: float) -> None:
        self.boot += seconds
        self.wall += timedelta(seconds=seconds)


class Marks:
    """Remembers what was marked."""

    def __init__(self) -> None:
        self.all: list[Names] = []
        self.rang = threading.Semaphore(0)

    def __call__(self, names: Names) -> None:
        self.all.append(names)
        self.rang.release()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture
def schedule(clocks: Clocks, marks: Marks) -> Timers:
    """A schedule whose APScheduler does not run: only `catch_up` rings."""
    return Timers(marks, boot=lambda: clocks.boot, wall=lambda: clocks.wall, chance=lambda: 0.5)


@pytest.fixture
def live(marks: Marks) -> Iterator[Timers]:
    schedule = Timers(marks)
    schedule.start()
    yield schedule
    schedule.stop()


def test_a_timer_rings_once_when_it_is_due(schedule: Timers, clocks: Clocks, marks: Marks) -> None:
    schedule.schedule("due", 10, A)
    clocks.pass_by(9.9)
    schedule.fire_due()
    assert marks.all == []
    clocks.pass_by(0.1)
    schedule.fire_due()
    schedule.fire_due()
    assert marks.all == [A]
    assert schedule.next_due() is None


@pytest.mark.parametrize(("first", "second"), [(10, 5), (5, 10), (10, 10.001), (10, 10)])
def test_the_last_word_on_a_key_counts(
    schedule: Timers, clocks: Clocks, marks: Marks, first: float, second: float
) -> None:
    schedule.schedule("due", first, A)
    schedule.schedule("due", second, B)
    clocks.pass_by(20)
    schedule.fire_due()
    assert marks.all == [B]


def test_a_cancelled_timer_does_not_ring(schedule: Timers, clocks: Clocks, marks: Marks) -> None:
    schedule.schedule("due", 1, A)
    schedule.cancel("due")
    schedule.cancel("due")
    clocks.pass_by(2)
    schedule.fire_due()
    assert marks.all == []


def test_the_worker_waits_for_the_earliest_timer_and_at_most_a_heartbeat(
    schedule: Timers, clocks: Clocks
) -> None:
    assert schedule.wait_s() == HEARTBEAT_S
    schedule.schedule("late", 3600, A)
    assert schedule.wait_s() == HEARTBEAT_S
    schedule.schedule("soon", 2, B)
    assert schedule.next_due() == 1002.0
    assert schedule.wait_s() == 2
    clocks.pass_by(60)
    assert schedule.wait_s() == 0


def test_sweeps_come_again_and_again_spread_by_chance(
    schedule: Timers, clocks: Clocks, marks: Marks
) -> None:
    schedule.schedule_sweeps(60, 10, "")
    for count in range(1, 4):
        assert schedule.next_sweep() == clocks.boot + 65
        clocks.pass_by(65)
        schedule.fire_due()
        assert marks.all == [EVERYTHING] * count


def test_another_interval_replaces_the_one_before(
    schedule: Timers, clocks: Clocks, marks: Marks
) -> None:
    schedule.schedule_sweeps(60, 0, "")
    schedule.schedule_sweeps(600, 0, "")
    clocks.pass_by(60)
    schedule.fire_due()
    assert marks.all == []
    assert schedule.next_sweep() == clocks.boot + 540


def test_cron_goes_before_the_interval(schedule: Timers, clocks: Clocks, marks: Marks) -> None:
    schedule.schedule_sweeps(600, 0, "*/2 * * * *")
    assert schedule.next_sweep() == clocks.boot + 90
    clocks.pass_by(90)
    schedule.fire_due()
    assert marks.all == [EVERYTHING]
    assert schedule.next_sweep() == clocks.boot + 120


@pytest.mark.parametrize("cron", ["", "* * * * *"])
@pytest.mark.parametrize("step", [timedelta(hours=-7), timedelta(hours=7)])
def test_a_step_of_the_wall_clock_delays_nothing(
    schedule: Timers, clocks: Clocks, marks: Marks, step: timedelta, cron: str
) -> None:
    schedule.schedule_sweeps(60, 0, cron)
    schedule.schedule("due", 10, A)
    clocks.wall += step
    clocks.pass_by(60)
    schedule.fire_due()
    assert sorted(marks.all, key=str) == [EVERYTHING, A]
    assert schedule.next_sweep() == clocks.boot + (30 if cron else 60)


def test_a_suspended_host_rings_what_it_slept_through_once(
    schedule: Timers, clocks: Clocks, marks: Marks
) -> None:
    schedule.schedule_sweeps(60, 0, "")
    clocks.pass_by(36000)  # CLOCK_BOOTTIME goes on
    schedule.fire_due()
    schedule.fire_due()
    assert marks.all == [EVERYTHING]


def test_apscheduler_rings_by_itself(live: Timers, marks: Marks) -> None:
    live.schedule_sweeps(0.01, 0.005, "")
    live.schedule("x", 0.01, A)
    assert all(marks.rang.acquire(timeout=60) for _ in range(5))
    assert A in marks.all
    assert marks.all.count(EVERYTHING) >= 4


def test_a_job_left_hours_ahead_by_a_step_backwards_is_caught_up(marks: Marks) -> None:
    ahead = Timers(marks, wall=lambda: datetime.now(timezone.utc) + timedelta(hours=5))
    ahead.start()
    ahead.schedule("x", 0.0, A)
    assert ahead.wait_s() == 0
    ahead.fire_due()
    assert marks.all == [A]
    ahead.stop()


def test_a_job_left_behind_by_a_step_forward_does_not_ring_twice(marks: Marks) -> None:
    behind = Timers(marks, wall=lambda: datetime.now(timezone.utc) - timedelta(hours=5))
    behind.start()
    behind.schedule("x", 30.0, A)
    assert marks.rang.acquire(timeout=60)
    behind.fire_due()
    assert marks.all == [A]
    behind.stop()


def test_nothing_rings_after_stop(clocks: Clocks, marks: Marks) -> None:
    schedule = Timers(marks, boot=lambda: clocks.boot)
    schedule.schedule_sweeps(1000, 0, "")
    schedule.start()
    schedule.stop()
    schedule.stop()
    schedule.schedule("y", 0, A)
    clocks.pass_by(2000)
    schedule.fire_due()
    assert marks.all == []
    assert schedule.next_due() is None


def test_stopping_amid_ringing_is_silent(marks: Marks) -> None:
    """APScheduler's thread must not die of a job that is taken away from it."""
    for _ in range(20):
        schedule = Timers(marks)
        schedule.schedule_sweeps(0.0, 0.0, "")
        schedule.start()
        assert marks.rang.acquire(timeout=60)
        schedule.stop()


def test_planning_the_same_again_costs_nothing(schedule: Timers) -> None:
    schedule.schedule("due", 10, A)
    before = schedule._timers["due"]
    schedule.schedule("due", 10.001, A)
    assert schedule._timers["due"] is before


@pytest.mark.parametrize("text", ["", "*/2 * * * *", "0 3 * * mon-fri", "0 0 29 2 *", "5 * * * *"])
def test_cron_expressions(text: str) -> None:
    validate_cron(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("* * * *", "invalid cron expression"),
        ("every minute", "write five fields"),
        ("61 * * * *", "invalid cron expression"),
        ("*/0 * * * *", "invalid cron expression"),
        ("0 0 30 2 *", "has no next time"),
        ("0 3 * * 0", "write days of the week by name"),
        ("\0 * * * *", "invalid cron expression"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_its_key(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"daemon.sweep_cron.*{why}"):
        validate_cron(text)
