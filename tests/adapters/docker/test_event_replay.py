"""What an engine's memory of its events proves of a gap, and how often a stream is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.docker.event_replay import RING, Gap, replay_events
from ds01d.adapters.docker.parsing import EngineEvent, read_event
from ds01d.adapters.docker.stream_cuts import StreamCuts
from ds01d.model.primitives import Wall

GAP = Gap(opened=Wall(1000.0), ended=Wall(1060.0), reopened_at_once=True)
SLOW = replace(GAP, reopened_at_once=False)


def event(at: float, action: str = "destroy", kind: str = "container", id: str = "a1") -> str:  # noqa: A002
    told: dict[str, Any] = {"Type": kind, "Action": action, "Actor": {"ID": id}}
    return json.dumps({**told, "time": int(at), "timeNano": int(at * 1e9)})


def bridged(
    lines: Sequence[str], gap: Gap = GAP, received: Sequence[str] = ()
) -> tuple[tuple[str, float], ...] | None:
    heard = [one for line in received if (one := read_event(line.encode())) is not None]
    found = replay_events("".join(f"{line}\n" for line in lines).encode(), gap, heard)
    return None if found is None else tuple((one.action, round(one.at, 3)) for one in found)


def test_an_event_from_before_the_cut_bridges_it_and_tells_what_it_hid() -> None:
    before, hidden = event(1030.0, "die"), [event(1060.2, "create"), event(1060.4)]
    assert bridged([before, *hidden], SLOW, received=[before]) == (
        ("create", 1060.2),
        ("destroy", 1060.4),
    )


def test_an_event_of_any_type_reaches_back() -> None:
    assert bridged([event(999.0, "pull", "image")], SLOW) == ()


def test_what_the_stream_lost_in_its_last_moment_is_told_too() -> None:
    heard, lost = event(1058.0, "start"), event(1059.9)
    assert bridged([heard, lost], SLOW, received=[heard]) == (("destroy", 1059.9),)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="another process, which remembers nothing"),
        pytest.param([event(1060.1, "create")], id="another process, with events of its own"),
        pytest.param([event(1059.8)], id="too near to the cut to tell"),
        pytest.param([event(1060.0 + n / 1e4) for n in range(RING)], id="a storm in the gap"),
        pytest.param([event(1000.0), "{not JSON"], id="no events"),
    ],
)
def test_without_one_nothing_is_bridged(lines: Sequence[str]) -> None:
    assert bridged(lines, SLOW) is None


def test_a_memory_that_is_not_full_has_everything_if_no_other_process_can_have_started() -> None:
    assert bridged([]) == ()
    assert bridged([event(1060.1)]) == (("destroy", 1060.1),)
    assert bridged([event(1060.1 + n / 1e4) for n in range(RING)]) is None


def test_other_events_than_those_that_matter_are_left_out() -> None:
    noise = [event(1060.1, "exec_create: sh"), event(1060.1, "connect", "network")]
    assert bridged([event(1.0), *noise]) == ()


@given(st.lists(st.floats(900.0, 1100.0), max_size=40), st.integers(0, 40), st.booleans())
def test_whatever_is_bridged_nothing_is_missing_and_nothing_comes_twice(
    times: list[float], heard: int, at_once: bool
) -> None:
    lines = [event(at, id=f"c{number}") for number, at in enumerate(sorted(times))]
    received = lines[:heard]
    gap = replace(GAP, reopened_at_once=at_once)
    found = replay_events("\n".join(lines).encode(), gap, events(received))
    if found is not None:
        after = [one for one in events(lines[heard:]) if one.at >= gap.opened]
        assert list(found) == after


def events(lines: Sequence[str]) -> list[EngineEvent]:
    return [one for line in lines if (one := read_event(line.encode())) is not None]


# --- how often it is cut


def test_a_stream_that_is_cut_again_and_again_has_an_interval_and_ends_to_have_one() -> None:
    cuts = StreamCuts()
    for lived in (60.0, 60.4, 59.8):
        assert cuts.interval_s(0.0) is None
        cuts.record_cut(lived)
    assert cuts.interval_s(0.0) == 60.4
    assert cuts.interval_s(60.0) == 60.4
    assert cuts.interval_s(130.0) is None


def test_one_that_lives_for_hours_or_ends_with_its_engine_is_not_cut() -> None:
    cuts = StreamCuts()
    for _ in range(5):
        cuts.record_cut(7200.0)
    assert cuts.interval_s(0.0) is None
    for _ in range(3):
        cuts.record_cut(10.0)
    assert cuts.interval_s(0.0) == 10.0
    cuts.clear()
    cuts.record_cut(10.0)
    assert cuts.interval_s(0.0) is None
