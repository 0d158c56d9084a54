"""However long a creation takes and its name is gone, it keeps its slot: with the true waits.

The same with a real engine and short times: `tests/integration/test_creation.py`.
"""

from __future__ import annotations

import pytest

from ds01d.model.books import Attempt
from ds01d.model.primitives import ContainerName, Wall
from tests.support.build import HOUR, NAME, Life, config

BOOKED = {(NAME, "0.0")}


def live(life: Life, seconds: float) -> None:
    """Let time pass, with a pass every few seconds."""
    pause = 1.0 if seconds <= 60 else 10.0
    while seconds > 0:
        step = min(pause, seconds)
        life.host.pass_time(step)
        life.sweep()
        seconds -= step
        assert life.host.bookings() == BOOKED


@pytest.mark.parametrize("told", [True, False], ids=["destroy-heard", "destroy-missed"])
@pytest.mark.parametrize("gap_s", [0.02, 0.2, 1.0, 5.0, 6.0, 30.0, 60.0, 890.0])
@pytest.mark.parametrize("pull_s", [0.0, 600.0])
def test_a_creation_keeps_its_booking(pull_s: float, gap_s: float, *, told: bool) -> None:
    life = Life(config())
    life.sweep()
    life.book("0.0", allocated_at_ago=0)
    life.sweep()
    live(life, pull_s)  # the image is pulled: nothing to see in Docker
    life.start_now("MIG-0-0", labels={}, created_ago=0)
    life.sweep()
    live(life, 1.0)
    life.stop()
    live(life, 2.0)  # it is committed
    life.remove(told=told)
    life.sweep()
    live(life, gap_s)
    life.start_now("MIG-0-0", created_ago=0)
    life.sweep()
    live(life, 130.0)  # longer than any absence grace
    life.remove()
    life.host.pass_time(0.01)
    life.sweep()
    assert life.host.bookings() == BOOKED
    life.host.pass_time(5.0)
    life.sweep()
    assert life.host.bookings() == set(), "a finished one is released after the settle time"


def test_a_creation_that_never_ends_is_released_when_its_grace_is_over() -> None:
    life = Life(config())
    life.sweep()
    life.book("0.0", allocated_at_ago=0)
    life.sweep()
    live(life, 890.0)
    life.after(180.0)
    assert life.host.bookings() == set()


@pytest.mark.parametrize("told", ["by its attempt", "by its metadata"])
@pytest.mark.parametrize("ahead_s", [-5 * HOUR, 7 * HOUR])
def test_a_creation_that_begins_by_another_clock_has_its_whole_grace(
    told: str, ahead_s: float
) -> None:
    """Whatever the clock says that wrote the time: the last sweep knew nothing of it."""
    life = Life(config())
    if told == "by its attempt":  # with a booking that is left from the container before
        life.book("0.0").run("MIG-0-0")
    life.after(HOUR)
    life.set_wall(ahead_s)
    began = Wall(life.host.wall - ahead_s)
    if told == "by its attempt":
        life.remove()
        life.host.attempts[ContainerName(NAME)] = Attempt(started=began)
    else:
        life.book("0.0", allocated_at=began)
        life.host.state = Life().host.state  # another writer wiped the booking out at once
    life.after(890.0)
    assert NAME in life.host.records
    assert life.host.bookings() == BOOKED
    life.after(180.0)
    assert life.host.bookings() == set()
    assert NAME not in life.host.records
