"""How old a booking is, where only ds01d's own looks can tell: no metadata does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.booking_ages import follow_changes, note_bookings
from ds01d.decide.pass_scope import find_scope
from ds01d.model.checkpoint import BookingFirstSeen, Checkpoint
from ds01d.model.holding import Free, Holds, Verdict, VerdictReason
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import Boot, ContainerName, Digest, SlotId, Source, UserName
from ds01d.reconcile.reconciler import Reconciler
from tests.decide.test_verdict import broken as torn
from tests.decide.test_verdict import unlisted
from tests.support.build import HOUR, LIMITS, NAME, OTHER, Life, books, slot, with_docker_books
from tests.support.repairs import REPAIR, memory, state
from tests.support.repairs import life as repaired

MINUTE = 60.0


def booked(*places: str, on: tuple[str, ...] = ("MIG-1-0",)) -> Life:
    return Life().book(*(places or ("1.0",))).run(*on).after(HOUR)


def held_for(life: Life, seconds: float) -> Life:
    rule = HoldRule(seconds=seconds, source="user_overrides.alice")
    life.host.limits = replace(LIMITS, holds={UserName("alice"): rule})
    return life


def verdict(life: Life) -> Verdict:
    return life.plan().decision.verdicts[NAME]


def is_being_created(life: Life, *places: str) -> bool:
    found = verdict(life)
    if not isinstance(found, Holds) or found.why is not VerdictReason.CREATING:
        return False
    return found.slots == set(places)


# --- what ds01d released --------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", ["none yet", "torn"])
def test_what_is_booked_again_right_after_a_release_is_new(metadata: str) -> None:
    """The event that let the last one go proves nothing of it, also in the very next look."""
    life = repaired().remove().after(7.0)
    assert not state(life).find_slots(NAME)
    life.host.pass_time(20.0)
    life.list_in("1.0")
    if metadata == "torn":
        torn(life)
    life.after(MINUTE)
    assert state(life).find_slots(NAME) == ("1.0",)
    assert is_being_created(life, "1.0")


def test_so_is_one_beside_what_was_left_of_it() -> None:
    life = Life(REPAIR).book("1.0", "0.0").run("MIG-1-0").use("MIG-0-0", f"id-{NAME}").after(HOUR)
    life.set_gpu(processes=()).after(3 * MINUTE)
    assert state(life).find_slots(NAME) == ("1.0",)
    life.remove().host.pass_time(1.0)
    torn(life.list_in("0.1")).after(3.0)
    assert is_being_created(life, "0.1", "1.0")


def test_a_change_of_its_own_makes_nothing_new() -> None:
    seen = BookingFirstSeen(at=Boot(7.0), inherited=False, slots=frozenset("ab"))  # type: ignore[arg-type]
    a, b, c, d = map(SlotId, "abcd")
    after = follow_changes(
        {NAME: seen, OTHER: replace(seen, slots=None)},
        taken=frozenset(((NAME, c), (OTHER, a))),
        given=frozenset(((NAME, d),)),
        moved={a: b, b: c},
        at=Boot(9.0),
    )
    assert after == {
        NAME: replace(seen, slots=frozenset((b, d))),
        OTHER: replace(seen, slots=None),
    }
    both = frozenset(((NAME, a), (NAME, b)))
    assert follow_changes({NAME: seen}, both, frozenset(), {}, Boot(9.0)) == {}
    given = follow_changes({}, frozenset(), frozenset(((NAME, a),)), {}, Boot(9.0))
    assert given == {NAME: BookingFirstSeen(at=Boot(9.0), inherited=True, slots=frozenset((a,)))}


def test_the_table_that_is_repaired_makes_nothing_new() -> None:
    life = Life(REPAIR).book("1.0").run("MIG-1-0").after(HOUR)
    appeared = memory(life).appeared[NAME]
    assert life.host.gpu is not None
    places = {"MIG-1-0": 1, "MIG-1-1": 0}
    migs = tuple(replace(one, index=places.get(one.uuid, one.index)) for one in life.host.gpu.migs)
    life.set_gpu(migs=migs).after(5 * MINUTE)
    assert state(life).find_slots(NAME) == ("1.1",)
    assert memory(life).appeared[NAME] == replace(appeared, slots=frozenset((SlotId("1.1"),)))


# --- what others did between two looks ------------------------------------------------------------


def test_a_slot_in_the_place_of_another_one_is_new() -> None:
    life = booked().remove()
    life.host.pass_time(1.0)
    torn(unlisted(life, "1.0").list_in("0.0")).sweep()
    assert is_being_created(life, "0.0")


def test_so_is_one_that_went_while_ds01d_looked_at_others() -> None:
    life = booked("1.0", "0.0", on=("MIG-1-0", "MIG-0-0"))
    life.book("1.1", name=OTHER).run("MIG-1-1", name=OTHER).after(HOUR).remove()

    def look_at(name: str) -> None:
        Reconciler(life.host.world(), life.config).run(frozenset({name}))  # type: ignore[arg-type]

    look_at(NAME)
    life.host.pass_time(1.0)
    unlisted(life, "0.0")
    look_at(OTHER)
    life.host.pass_time(1.0)
    torn(life.list_in("0.0"))
    look_at(NAME)
    assert is_being_created(life, "0.0", "1.0")


def test_one_that_came_in_the_look_that_missed_the_container_is_of_a_new_creation() -> None:
    life = booked().remove()
    life.host.pass_time(1.0)
    life.list_in("0.0").after(5 * MINUTE)
    assert is_being_created(life, "0.0", "1.0")


def test_after_a_lost_checkpoint_an_event_from_before_proves_nothing() -> None:
    life = booked().remove().after(3.0).list_in("0.0").after(30.0)
    life.host.memory = None
    life.after(10.0)
    found = verdict(life)
    assert isinstance(found, Free)
    assert found.due > life.host.boot + MINUTE


# --- nothing lives on for long --------------------------------------------------------------------


def test_an_old_copy_of_the_state_gives_a_stopped_container_no_new_hold() -> None:
    life = held_for(Life(REPAIR).book("1.0").run("MIG-1-0"), 24 * HOUR).after(HOUR).stop()
    before = state(life)
    life.after(24 * HOUR + 10 * MINUTE)
    assert not state(life).find_slots(NAME)
    life.host.state = replace(before, digest=Digest("an old copy"))
    life.after(10 * MINUTE)
    assert state(life).find_slots(NAME), "it may be about to be started"
    life.after(6 * MINUTE)
    assert not state(life).find_slots(NAME)


@pytest.mark.parametrize("hold", [0.0, 60.0])
@pytest.mark.parametrize("ran_for", [0.0, 10.0, HOUR])
def test_a_job_whose_booking_is_seen_after_its_end_has_no_more_than_its_hold(
    ran_for: float, hold: float
) -> None:
    life = held_for(Life(REPAIR).after(HOUR), hold)
    life.host.pass_time(1.0)
    life.book("1.0", allocated_at_ago=0.0).start_now("MIG-1-0", created_ago=0.0)
    life.host.pass_time(ran_for)
    life.stop().host.pass_time(1.0)
    life.after(3 * MINUTE + hold)  # ds01d was away in between: the absence grace counts, too
    assert not state(life).find_slots(NAME)


def test_also_if_docker_did_not_answer_meanwhile() -> None:
    life = held_for(Life(REPAIR).after(HOUR), 0.0).fail(Source.DOCKER).after(MINUTE)
    life.book("1.0", allocated_at_ago=0.0).start_now("MIG-1-0", created_ago=0.0).after(MINUTE)
    life.stop().after(MINUTE).mend().after(3 * MINUTE)
    assert not state(life).find_slots(NAME)


def test_what_went_and_came_back_while_docker_did_not_answer_is_new() -> None:
    life = repaired().fail(Source.DOCKER).after(5.0)
    life.remove()
    unlisted(life, "1.0").after(5.0)
    torn(life.list_in("1.0")).after(5.0).mend().after(MINUTE)
    assert is_being_created(life, "1.0")


def test_the_list_that_names_a_container_twice_gives_it_no_new_hold() -> None:
    life = held_for(booked(), 15 * MINUTE).stop().after(20 * MINUTE)
    assert isinstance(verdict(life.list_in("1.0").after(MINUTE)), Free)


def test_with_docker_as_the_books_a_device_that_comes_back_gives_no_new_hold() -> None:
    life = Life(REPAIR)
    life.config = with_docker_books(life.config)
    life.run("MIG-1-0").after(HOUR).stop()
    whole = life.host.gpu
    assert whole is not None
    without = replace(whole, migs=tuple(one for one in whole.migs if one.uuid != "MIG-1-0"))
    for _ in range(5):
        for gpu in (without, whole):
            life.host.gpu = gpu
            life.after(3 * MINUTE)
    found = verdict(life)
    assert isinstance(found, Free) or (isinstance(found, Holds) and not found.slots)


# --- whatever happens -----------------------------------------------------------------------------

SLOTS = tuple(map(SlotId, ("0.0", "0.1", "1.0")))
PAIRS = st.tuples(st.sampled_from((NAME, OTHER)), st.sampled_from(SLOTS))
DEEDS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("book", "unbook", "take", "give")), PAIRS),
        st.tuples(st.just("look"), st.sampled_from(((NAME,), (OTHER,), (NAME, OTHER)))),
    ),
    max_size=25,
)


@given(DEEDS)
def test_no_booking_of_others_is_older_than_it_is(deeds: list[tuple[str, Any]]) -> None:
    """What a look has missed, or ds01d has taken, is new once others have booked it."""
    checkpoint = Checkpoint(has_baseline=True)
    listed: dict[tuple[ContainerName, SlotId], float] = {}  # and since when, by others; 0: ours
    missed = pairs_of((NAME, OTHER))
    for at, (deed, what) in enumerate(deeds, 1):
        if deed == "book":
            listed.setdefault(what, at if what in missed else 0.0)
        elif deed == "unbook":
            listed.pop(what, None)
        elif deed == "look":
            checkpoint = replace(checkpoint, appeared=look(checkpoint, what, listed, at))
            missed |= {pair for pair in pairs_of(what) if pair not in listed}
            missed -= {pair for pair in pairs_of(what) if pair in listed}
        else:
            own = frozenset((what,)), frozenset[tuple[ContainerName, SlotId]]()
            taken, given_ = own if deed == "take" else own[::-1]
            appeared = follow_changes(checkpoint.appeared, taken, given_, {}, Boot(at))
            checkpoint = replace(checkpoint, appeared=appeared)
            if deed == "take":
                listed.pop(what, None)
                missed.add(what)
            else:
                listed[what] = 0.0
                missed.discard(what)
        if deed == "look":
            for (name, _), since in listed.items():
                if name in what and since:
                    newest = checkpoint.appeared[name]
                    assert newest.at >= since
                    assert not newest.inherited


def pairs_of(names: Iterable[ContainerName]) -> set[tuple[ContainerName, SlotId]]:
    return {(name, slot_id) for name in names for slot_id in SLOTS}


def look(
    checkpoint: Checkpoint,
    names: tuple[ContainerName, ...],
    listed: Iterable[tuple[ContainerName, SlotId]],
    at: float,
) -> Mapping[ContainerName, BookingFirstSeen]:
    slots = [slot(place, *(name for name, where in listed if where == place)) for place in SLOTS]
    before = Life().sweep().decision.snapshot
    snapshot = replace(
        before,
        now=replace(before.now, boot=Boot(at)),
        looked=None,
        state=books(*slots),
        names=frozenset(names),
    )
    return note_bookings(snapshot, checkpoint, find_scope(snapshot, checkpoint))
