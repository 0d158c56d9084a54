"""Since when the limits may end a hold: once their file stays as it is."""

from __future__ import annotations

from dataclasses import replace

from ds01d.model.limits import HoldRule
from ds01d.model.primitives import Source
from tests.support.build import LIMITS, NAME, Life
from tests.support.repairs import memory, rebooted

TRAIN = f"id-{NAME}"


def settled_in(life: Life, version: str, size: int, *, after: float = 0.0) -> float:
    """Let the limits be another version; how long until they may end a hold."""
    life.host.pass_time(after)
    life.host.limits = replace(LIMITS, version=version, size=size)
    noted = memory(life.after(0)).limits
    assert noted is not None
    return noted.settled - life.host.boot


def test_limits_count_once_they_stay_as_they_are() -> None:
    life = Life()
    assert settled_in(life, "a", 1000) == 5
    assert settled_in(life, "a", 1000, after=3) == 2
    assert settled_in(life, "b", 1000, after=1) == 5
    assert settled_in(life, "a", 1000, after=4) == 5
    assert settled_in(life, "a", 1000, after=60) == -55


def test_each_part_that_a_slow_writer_adds_is_compared_with_the_whole_before() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    settled_in(life, "a", 1000, after=60)
    assert settled_in(life, "half", 500, after=60) == 120
    assert settled_in(life, "more", 700, after=20) == 120
    assert settled_in(life, "b", 1100, after=20) == 5


def test_a_part_at_the_first_sight_is_compared_with_nothing() -> None:
    life = Life()
    assert settled_in(life, "half", 500) == 5
    assert settled_in(life, "whole", 1000, after=3) == 5
    assert settled_in(life, "half", 500, after=3) == 120


def test_a_quarter_less_is_more_than_an_edit() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    assert settled_in(life, "b", 750, after=60) == 5
    assert settled_in(life, "c", 562, after=60) == 120


def test_so_is_a_user_who_is_named_no_more() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    life.host.pass_time(60)
    life.host.limits = replace(LIMITS, holds={}, version="b", size=1000)
    noted = memory(life.after(0)).limits
    assert noted is not None
    assert noted.settled - life.host.boot == 120


def test_what_was_not_understood_ended_no_hold_and_is_no_loss() -> None:
    life = Life()
    unclear = HoldRule(seconds=None, source="groups.a", problem="groups.a.members: no list")
    life.host.limits = replace(LIMITS, unnamed=unclear, version="a", size=1000)
    life.after(60)
    assert settled_in(life, "b", 100) == 5


def test_limits_that_fail_and_come_back_as_they_were_have_not_changed() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    life.fail(Source.LIMITS).after(60).mend()
    assert settled_in(life, "a", 1000) == -55


def test_over_a_boot_the_limits_are_new() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    assert settled_in(rebooted(life), "a", 1000) == 5


def test_a_moment_too_far_ahead_counts_no_longer_than_the_longest_wait() -> None:
    """CLOCK_BOOTTIME is smaller in a container, or in a time namespace."""
    life = Life()
    settled_in(life, "a", 1000)
    life.host.boot -= 400
    assert settled_in(life, "a", 1000) == 120
