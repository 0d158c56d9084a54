"""The pace: what is released without a destroy event goes a few at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ds01d.decide.gate import GateResult
from ds01d.decide.pace import count_releases, pace_limit
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.drift import Drift, Outcome, WaitReason
from ds01d.model.primitives import Boot, ContainerName, SlotId
from tests.decide.test_gate import NOW, POLICY, booking, drift, frozen, held, judge, seen


def releases(count: int, **fields: Any) -> list[Drift]:
    return [drift(f"c{i}", f"{i}.0", reported=False, **fields) for i in range(count)]


def outcomes(passed: GateResult) -> list[Outcome]:
    return [gated.outcome for gated in passed.gated]


@pytest.mark.parametrize(
    ("bookings", "limit"), [(0, 2), (4, 2), (8, 2), (12, 3), (100, 25), (103, 25)]
)
def test_the_limit_is_two_or_a_quarter_of_all_bookings(bookings: int, limit: int) -> None:
    assert pace_limit(POLICY, bookings) == limit


def test_the_rest_waits_for_the_next_window() -> None:
    passed = judge(*releases(4))
    assert outcomes(passed) == [Outcome.DUE] * 2 + [Outcome.WAITING] * 2
    assert held(passed.gated[-1]) == (WaitReason.PACE, 1_600.0)


def test_what_was_released_in_the_window_counts() -> None:
    two = releases(2)
    memory = seen(*two, released=(Boot(500.0),))
    passed = judge(*two, memory=memory)
    assert outcomes(passed) == [Outcome.DUE, Outcome.WAITING]
    assert held(passed.gated[1]) == (WaitReason.PACE, 1_100.0)


def test_what_was_released_before_the_window_does_not() -> None:
    two = releases(2)
    assert (
        outcomes(judge(*two, memory=seen(*two, released=(Boot(400.0),) * 5))) == [Outcome.DUE] * 2
    )


def test_releases_backed_by_a_destroy_event_are_not_paced() -> None:
    many = [replace(item, reported=True) for item in releases(9)]
    assert outcomes(judge(*many)) == [Outcome.DUE] * 9


def test_what_takes_nothing_is_not_paced() -> None:
    many = [booking(f"c{i}") for i in range(9)]
    assert outcomes(judge(*many)) == [Outcome.DUE] * 9


def test_a_container_of_many_slots_is_never_split_and_goes_alone() -> None:
    """Three slots, a limit of two: all or nothing, and all where nothing else was released."""
    big = [drift("big", place, reported=False) for place in ("0.0", "0.1", "1.0")]
    assert outcomes(judge(*big)) == [Outcome.DUE] * 3
    memory = seen(*big, released=(Boot(990.0),))
    assert outcomes(judge(*big, memory=memory)) == [Outcome.WAITING] * 3


def test_two_names_tied_by_a_renaming_cannot_wait_for_each_other_for_ever() -> None:
    move = drift("a", "1.0", reported=False, given=frozenset({(ContainerName("b"), SlotId("1.0"))}))
    others = [drift("b", place, reported=False) for place in ("0.0", "0.1")]
    assert outcomes(judge(move, *others)) == [Outcome.DUE] * 3


def test_a_pace_of_nothing_releases_nothing() -> None:
    assert outcomes(judge(*releases(1), pace_count=0, pace_fraction=0.0)) == [Outcome.WAITING]


def test_held_drifts_use_up_no_pace() -> None:
    frozen_one, *others = releases(3)
    memory = seen(frozen_one, *others, freezes=frozen("c0"))
    passed = judge(frozen_one, *others, memory=memory)
    assert outcomes(passed) == [Outcome.WAITING, Outcome.DUE, Outcome.DUE]


def test_released_bookings_are_remembered_one_by_one_for_the_length_of_the_window() -> None:
    memory = Checkpoint(released=(Boot(100.0), Boot(900.0)))
    both = drift("a", "1.0", reported=False, taken=drift("a").taken | drift("a", "1.1").taken)
    memory = count_releases(memory, [both, drift("b"), booking("c")], POLICY, NOW)
    assert memory.released == (900.0, 1_000.0, 1_000.0)
