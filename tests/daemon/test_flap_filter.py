"""What lasts is told twice; what comes and goes a bounded number of times."""

from __future__ import annotations

from ds01d.daemon.flap_filter import LONGEST_QUIET_S, PATIENCE, Ended, FlapFilter
from ds01d.model.primitives import Boot

DAY = 1440


def day(there: list[bool]) -> list[str | Ended[str]]:
    """A minute for each look: what is told."""
    lasting: FlapFilter[str] = FlapFilter()
    told: list[str | Ended[str]] = []
    for minute, is_there in enumerate(there):
        now, keys = Boot(60.0 * minute), ["it"] if is_there else []
        told += lasting.begin_present(keys, now)
        told += lasting.end_absent(keys, now)
    return told


def test_what_lasts_for_hours_is_told_twice() -> None:
    assert day([False] * 10 + [True] * 300 + [False] * 300) == ["it", Ended("it", 300 * 60.0, 1)]


def test_the_first_few_ends_are_told_at_once() -> None:
    told = day([True, True, False, False] * PATIENCE)
    assert told == ["it", Ended("it", 120.0, 1)] * PATIENCE


def test_what_comes_and_goes_all_day_becomes_one_thing_that_lasts() -> None:
    told = day([True, False] * (DAY // 2 - 60) + [False] * 120)
    assert len(told) < 20
    assert isinstance(told[-1], Ended)
    assert told[-1].times > 600
    assert told[-1].seconds > 20 * 3600


def test_nothing_is_told_more_than_a_few_dozen_times_a_day() -> None:
    for up in (1, 2, 5, 10, 30, 59, 60, 61, 90):
        for down in (1, 7, 60):
            pattern = ([True] * down + [False] * up) * (DAY // (up + down) + 1)
            assert len(day(pattern[:DAY])) <= 60, (up, down)


def test_an_hour_of_peace_forgets_how_often_it_came() -> None:
    peace = [False] * (int(LONGEST_QUIET_S / 60) + 1)
    told = day([*([True, False] * 20), *peace, *peace, True, False])
    assert told[-2:] == ["it", Ended("it", 60.0, 1)]


def test_an_end_that_nobody_proves_has_to_hold() -> None:
    lasting: FlapFilter[str] = FlapFilter(quiet_s=600.0)
    assert lasting.begin_present(["it"], Boot(0.0)) == ["it"]
    assert lasting.end_absent([], Boot(10.0)) == []
    assert lasting.begin_present(["it"], Boot(20.0)) == []
    assert lasting.end_absent([], Boot(30.0)) == []
    assert lasting.end_absent([], Boot(700.0)) == [Ended("it", 30.0, 1)]


def test_what_is_over_for_certain_is_not_told_again() -> None:
    lasting: FlapFilter[str] = FlapFilter()
    lasting.begin_present(["it"], Boot(0.0))
    assert lasting.end_now("it", Boot(5.0)) == 5.0
    assert lasting.end_now("it", Boot(6.0)) is None
    assert lasting.end_absent([], Boot(60.0)) == []
    assert not lasting.is_open("it")
    assert lasting.begin_present(["it"], Boot(70.0)) == ["it"]
