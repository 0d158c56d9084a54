"""Freezes: what they stop, and that nothing makes them longer than they were asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.freezes import anchor_freeze, find_freeze, freeze_end, is_in_force
from ds01d.model.checkpoint import Freeze
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, Wall

A, B = ContainerName("a"), ContainerName("b")
MOVE = Drift(
    kind=Kind.RENAMED_CONTAINER,
    action=Action.MOVE,
    container=A,
    slot=SlotId("1.0"),
    reason="",
    evidence=(),
    fingerprint="",
    taken=frozenset({(A, SlotId("1.0"))}),
    given=frozenset({(B, SlotId("1.1"))}),
    renamed_to=B,
)


def now(boot: float = 100.0, wall: float = 1_000.0) -> Now:
    return Now(wall=Wall(wall), boot=Boot(boot), boot_id="b")


def freeze(subject: str = "*", since: float = 1_000.0, until: float | None = None) -> Freeze:
    end = None if until is None else Wall(until)
    return Freeze(subject=subject, by="root", reason="", since=Wall(since), until=end)


@pytest.mark.parametrize("subject", ["*", "a", "b", "1.0", "1.1"])
def test_a_freeze_of_anything_that_a_change_touches_stops_it(subject: str) -> None:
    assert find_freeze(MOVE, {subject: freeze(subject)}, now()) is not None


@pytest.mark.parametrize("subject", ["c", "0", "1"])
def test_a_freeze_of_anything_else_does_not(subject: str) -> None:
    assert find_freeze(MOVE, {subject: freeze(subject)}, now()) is None


def test_one_that_is_over_stops_nothing() -> None:
    assert find_freeze(MOVE, {"*": freeze(since=0.0, until=999.0)}, now()) is None


@given(st.floats(0.0, 1e6), st.floats(-1e6, 1e6), st.floats(0.0, 1e6), st.floats(-1e6, 1e6))
def test_once_anchored_no_clock_moves_the_end_nor_makes_it_later_than_asked_for(
    length: float, step: float, later: float, second_step: float
) -> None:
    asked = freeze(until=1_000.0 + length)
    anchored = anchor_freeze(asked, now(wall=1_000.0 + step))
    end = freeze_end(anchored, now())
    assert end is not None
    assert end <= 100.0 + length + 1e-6
    moment = now(boot=100.0 + later, wall=1_000.0 + second_step)
    assert freeze_end(anchored, moment) == end
    assert is_in_force(anchored, moment) == (moment.boot < end)


def test_one_without_an_end_is_in_force_until_it_is_thawed() -> None:
    assert is_in_force(anchor_freeze(freeze(), now()), now(boot=1e9, wall=1e9))
