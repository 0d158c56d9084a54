"""Rendering: the books that follow from the bookings: counters, records, and what stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ds01d.decide.expected_books import count_users
from ds01d.decide.user_counters import recount_users
from ds01d.model.books import AllocatorState, Record
from ds01d.model.containers import State
from ds01d.model.drift import Kind, Outcome
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from tests.support.build import (
    ALLOCATED,
    HOUR,
    LIMITS,
    NAME,
    OTHER,
    STARTED,
    Life,
    books,
    config,
    container,
    named,
    slot,
)
from tests.support.world import WALL

STRANGE = ContainerName("job")  # booked, but nothing tells whose it is


def life() -> Life:
    return Life(config(pace_count=9))


def settled(setup: Life, seconds: float = 60.0) -> Life:
    setup.after(seconds)
    assert not setup.plan().drifts
    return setup


def kinds(setup: Life) -> set[Kind]:
    return {gated.drift.kind for gated in setup.plan().drifts}


def at(setup: Life, place: str) -> Any:
    assert isinstance(setup.host.state, AllocatorState)
    return setup.host.state.slots[SlotId(place)]


def of(setup: Life, name: ContainerName = NAME) -> Record:
    written = setup.host.records[name]
    assert isinstance(written, Record)
    return written


# --- counters ---------------------------------------------------------------------------------


def test_every_container_counts_once_for_its_user() -> None:
    setup = life().book("1.0").run("MIG-1-0")
    setup.book("1.0", name=OTHER, user=UserName("bob")).run("MIG-1-0", name=OTHER, labels={})
    settled(setup)
    assert at(setup, "1.0").users == {"alice": 1, "bob": 1}


def test_counters_that_are_right_keep_their_order() -> None:
    setup = life().book("1.0").book("1.0", name=OTHER, user=UserName("bob"))
    setup.host.state = books(slot("1.0", NAME, OTHER, users={"bob": 1, "alice": 1}))
    view = setup.plan().decision.index
    assert view is not None
    assert list(count_users(view.table.slots[SlotId("1.0")], (NAME, OTHER), view)) == [
        "bob",
        "alice",
    ]


def test_a_container_of_an_unknown_user_counts_for_whom_the_slot_counts_too_often() -> None:
    setup = life().book("1.0").run("MIG-1-0").list_in("1.0", name=STRANGE)
    setup.host.state = replace_slot(
        setup, slot("1.0", NAME, STRANGE, users={"alice": 1, "carol": 1})
    )
    setup.run(name=STRANGE, labels={})
    settled(setup)
    assert at(setup, "1.0").users == {"alice": 1, "carol": 1}
    setup.remove(NAME)
    settled(setup, 120.0)
    assert at(setup, "1.0").users == {"carol": 1}


def replace_slot(setup: Life, changed: Any) -> AllocatorState:
    state = setup.host.state
    assert isinstance(state, AllocatorState)
    slots = {**state.slots, changed.id: changed}
    return replace(state, slots=slots)


def test_the_user_whom_only_a_counter_knows_gets_into_its_metadata() -> None:
    setup = life().run(name=STRANGE, labels={}).list_in("1.0", name=STRANGE)
    setup.host.state = replace_slot(setup, slot("1.0", STRANGE, users={"carol": 1}))
    settled(setup)
    assert of(setup, STRANGE).user == "carol"
    assert at(setup, "1.0").users == {"carol": 1}


def test_it_is_not_the_user_of_another_container_in_that_slot() -> None:
    setup = life().book("1.0").run("MIG-1-0").run(name=STRANGE, labels={})
    setup.host.state = replace_slot(
        setup, slot("1.0", NAME, STRANGE, users={"alice": 1, "carol": 1})
    )
    settled(setup)
    assert of(setup, STRANGE).user == "carol"
    assert at(setup, "1.0").users == {"alice": 1, "carol": 1}


def test_where_nobody_knows_the_metadata_says_so_and_the_books_are_at_rest() -> None:
    setup = life().run(name=STRANGE, labels={})
    setup.host.state = replace_slot(setup, slot("1.0", STRANGE, users={"bob": 1, "carol": 1}))
    settled(setup)
    assert of(setup, STRANGE).user == "unknown"


@pytest.mark.parametrize("wrong", [{}, {"alice": 2}, {"bob": 1}, {"alice": 1, "bob": 3}])
def test_a_counter_that_is_wrong_in_any_way_is_counted_anew(wrong: dict[str, int]) -> None:
    setup = life().book("1.0").run("MIG-1-0")
    setup.host.state = replace_slot(setup, slot("1.0", NAME, users=wrong))
    assert kinds(setup) == {Kind.WRONG_COUNT}
    settled(setup)
    assert at(setup, "1.0").users == {"alice": 1}


@pytest.mark.parametrize(
    ("wrong", "known_as"),
    [
        ({"bob": 1, "eve": 2}, "users say bob: 1, eve: 2, the containers are of alice: 1"),
        ({}, "users say nobody, the containers are of alice: 1"),
    ],
)
def test_a_wrong_counter_is_known_by_the_text_that_is_in_histories(
    wrong: dict[str, int], known_as: str
) -> None:
    setup = life().book("1.0").run("MIG-1-0")
    setup.host.state = replace_slot(setup, slot("1.0", NAME, users=wrong))
    assert [one.drift.fingerprint for one in setup.plan().drifts] == [known_as]


def test_an_empty_slot_counts_nobody() -> None:
    setup = life()
    setup.host.state = replace_slot(setup, slot("1.0", users={"alice": 1}))
    settled(setup)
    assert at(setup, "1.0").users == {}


def test_who_leaves_a_slot_leaves_its_counter() -> None:
    setup = life().book("1.0").run("MIG-1-0").book("1.0", name=OTHER).run("MIG-1-0", name=OTHER)
    settled(setup)
    setup.remove(OTHER)
    settled(setup, 120.0)
    assert (at(setup, "1.0").containers, at(setup, "1.0").users) == ((NAME,), {"alice": 1})


# --- records ----------------------------------------------------------------------------------


def test_a_record_is_made_from_what_is_known() -> None:
    setup = life().run("MIG-1-0", created_ago=500.0)
    setup.host.limits = replace(LIMITS, priorities={UserName("alice"): 40})
    settled(setup)
    made = of(setup)
    assert (made.user, made.gpu_id, made.priority) == ("alice", "1.0", 40)
    assert made.allocated_at == WALL - 500.0
    assert made.stopped_at is None


def test_what_is_right_in_a_record_stays_as_it_is() -> None:
    setup = life().book("1.1", priority=77).run("MIG-1-0")
    settled(setup)
    made = of(setup)
    assert (made.gpu_id, made.priority, made.allocated_at) == ("1.0", 77, ALLOCATED)
    assert made.allocated_text == f"at {ALLOCATED}"


def test_of_several_slots_the_one_it_names_stays() -> None:
    setup = life().book("1.1", "1.0").run("MIG-1-0", "MIG-1-1")
    settled(setup)
    assert of(setup).gpu_id == "1.1"


def test_root_is_not_believed_where_the_name_says_otherwise() -> None:
    """Sudo leaves root behind."""
    setup = life().book("1.0", user=UserName("root")).run("MIG-1-0", labels={"aime.mlc": "root"})
    setup.host.passwd = {1001: "alice"}
    setup.host.state = replace_slot(setup, slot("1.0", NAME, users={"root": 1}))
    setup.run("MIG-1-0", labels={}).after(HOUR / 2)
    assert of(setup).user == "alice"
    assert at(setup, "1.0").users == {"alice": 1}


def test_a_renamed_container_takes_its_record_along() -> None:
    setup = life().book("1.0", priority=33).run("MIG-1-0")
    settled(setup)
    setup.rename(NAME, OTHER)
    settled(setup)
    assert NAME not in setup.host.records
    made = of(setup, OTHER)
    assert (made.container, made.priority, made.allocated_at) == (OTHER, 33, ALLOCATED)
    assert at(setup, "1.0").users == {"alice": 1}


# --- stopped_at -------------------------------------------------------------------------------

FINISHED = Wall(WALL - 100.0)


@pytest.mark.parametrize(
    ("state", "finished", "was", "should"),
    [
        pytest.param(State.EXITED, FINISHED, None, FINISHED, id="missing: Docker's time"),
        pytest.param(State.DEAD, FINISHED, None, FINISHED, id="dead, too"),
        pytest.param(
            State.EXITED,
            FINISHED,
            Wall(STARTED - 9),
            FINISHED,
            id="of an earlier stop: new",
        ),
        pytest.param(
            State.EXITED,
            FINISHED,
            Wall(STARTED + 9),
            Wall(STARTED + 9),
            id="of this run: stays",
        ),
        pytest.param(
            State.EXITED, FINISHED, Wall(WALL + 9), Wall(WALL + 9), id="in the future: stays"
        ),
        pytest.param(State.EXITED, None, None, None, id="Docker has no time: nothing is made up"),
        pytest.param(State.RUNNING, None, FINISHED, None, id="it runs: removed"),
        pytest.param(State.PAUSED, None, FINISHED, None, id="it is paused: removed"),
        pytest.param(State.CREATED, None, None, None, id="never started: none"),
        pytest.param(State.CREATED, None, FINISHED, FINISHED, id="never started: left alone"),
        pytest.param(
            State.EXITED,
            Wall(STARTED - 50),
            Wall(STARTED - 50),
            Wall(STARTED - 50),
            id="the clock was set back while it ran: at rest all the same",
        ),
    ],
)
def test_stopped_at(
    state: State, finished: Wall | None, was: Wall | None, should: Wall | None
) -> None:
    setup = life().book("1.0", stopped_at=was)
    setup.host.limits = replace(
        LIMITS, holds={UserName("alice"): HoldRule(seconds=None, source="defaults")}
    )
    setup.host.run(container(NAME, named("MIG-1-0"), state=state, finished=finished))
    settled(setup)
    assert of(setup).stopped_at == should


def test_a_second_stop_is_written_over_the_first_and_repeating_it_does_not_restart_the_hold() -> (
    None
):
    setup = life().book("1.0").run("MIG-1-0")
    settled(setup)
    setup.stop()
    settled(setup)
    first = of(setup).stopped_at
    settled(setup, 300.0)
    assert of(setup).stopped_at == first
    setup.change(state=State.RUNNING, started_ago=0, finished=None)
    settled(setup)
    assert of(setup).stopped_at is None
    setup.stop()
    settled(setup)
    assert of(setup).stopped_at == setup.host.wall - 60.0


# --- what is not touched ----------------------------------------------------------------------


def test_drifts_that_are_not_due_change_nothing() -> None:
    setup = life().book("1.0", "1.1").run("MIG-1-0")
    decision = setup.plan().decision
    (waiting,) = decision.gated
    assert waiting.outcome is Outcome.WAITING
    nothing = decision.expected_books(())
    assert (nothing.state, nothing.records) == (None, ())


def test_only_the_slots_that_change_are_other_slots() -> None:
    setup = life().book("1.0", "1.1").run("MIG-1-0")
    state = setup.host.state
    assert isinstance(state, AllocatorState)
    decision = setup.plan().decision
    rendered = decision.expected_books(gated.drift for gated in decision.gated).state
    assert rendered is not None
    changed = {name for name, new in rendered.slots.items() if new != state.slots[name]}
    assert changed == {"1.1"}


@pytest.mark.parametrize("count", [2**63, 10**30, 10**4000])
def test_a_counter_of_any_size_is_no_reason_to_stop(count: int) -> None:
    """One container of nobody known, in a slot that counts one user so often."""
    assert recount_users({"x": count}, [None]) == {"x": 1}
    assert recount_users({"x": count, "y": 1}, [None]) == {}
