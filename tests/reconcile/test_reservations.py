"""A reservation from its allocation to each of its ends, whatever the clocks do meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ds01d.config import AllocatorConfig
from ds01d.decide.booking_record import identify_booking
from ds01d.model.allocation import Allocated, NotAllocated, Rejected, Released
from ds01d.model.books import AllocatorState, Attempt, Record
from ds01d.model.primitives import ContainerName, SlotId, Source, UserName, Wall
from ds01d.model.reservation import BOOKING_LABEL
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.booking_history import BookingHistory
from ds01d.reconcile.undo import Undoer
from tests.support.build import LIMITS, NAME, Life, config, record
from tests.support.repairs import history, rebooted

ALICE, BOB = UserName("alice"), UserName("bob")
GRACE_S = 900.0
DAY_S = 86_400.0


def host(**policy: Any) -> Life:
    """A host without bookings, watched for a while; slots are not shared."""
    settings = msgspec.structs.replace(
        config(mode="repair", **policy), allocator=AllocatorConfig(sharing="never")
    )
    limits = replace(LIMITS, default_quota=2)
    life = Life(settings, limits=limits).after(600.0)
    life.host.passwd |= {1001: "alice", 1002: "bob"}
    return life


def allocator(life: Life) -> Allocator:
    world = life.host.world()
    return Allocator(world, life.config, BookingHistory(world, {}))


def reserve(life: Life, user: UserName = ALICE, **fields: Any) -> Allocated:
    answer = allocator(life).allocate(user, fields.pop("container", None), **fields)
    assert isinstance(answer, Allocated), answer
    return answer


def bookings(life: Life) -> list[tuple[ContainerName, SlotId]]:
    assert isinstance(life.host.state, AllocatorState)
    return sorted(life.host.state.list_bookings())


def run_labelled(life: Life, given: Allocated, name: str = "train._.1001") -> Life:
    devices = [f"MIG-{one.slot.replace('.', '-')}" for one in given.all_slots]
    return life.run(*devices, name=name, labels={BOOKING_LABEL: given.id}, created_ago=0.5)


@pytest.fixture(params=[0.0, DAY_S, -DAY_S], ids=["steady", "set forward", "set back"])
def step_s(request: pytest.FixtureRequest) -> float:
    step: float = request.param
    return step


def test_it_has_an_id_an_owner_and_an_end_in_reply_record_and_history() -> None:
    life = host()
    given = reserve(life, reason="a course")
    assert given.until == life.host.wall + GRACE_S
    assert given.container == f"{given.id}._.1001"
    record = life.host.records[given.container]
    assert isinstance(record, Record)
    assert (record.booking, record.user) == (given.id, ALICE)
    (entry, *_) = history(life)
    assert (entry.booking, entry.reason) == (given.id, "a course")
    again = reserve(life, container=given.container)
    assert (again.id, again.until, again.already) == (given.id, given.until, True)


def test_it_ends_on_time(step_s: float) -> None:
    life = host()
    given = reserve(life)
    life.after(GRACE_S / 3).set_wall(step_s).after(2 * GRACE_S / 3 - 10.0)
    assert bookings(life) == [(given.container, given.slot)]
    life.after(200.0)
    assert bookings(life) == []
    assert history(life)[-2].booking == given.id


def test_after_a_reboot_its_time_starts_again() -> None:
    life = host()
    given = reserve(life)
    life.after(GRACE_S - 60.0)
    rebooted(life)
    life.after(GRACE_S - 60.0)
    assert bookings(life) == [(given.container, given.slot)]
    life.after(400.0)
    assert bookings(life) == []


def test_a_failed_creation_ends_it(step_s: float) -> None:
    life = host()
    given = reserve(life, container=ContainerName("train._.1001"))
    life.after(60.0).set_wall(step_s)
    life.host.attempts[given.container] = Attempt(failed=Wall(life.host.wall))
    life.after(240.0)
    # A failure that seems older than the allocation may be that of another attempt.
    assert bookings(life) == ([] if step_s >= 0 else [(given.container, given.slot)])
    life.after(GRACE_S)
    assert bookings(life) == []


def test_a_release_by_its_id_ends_it_at_once(step_s: float) -> None:
    life = host()
    given = reserve(life, count=2)
    life.after(60.0).set_wall(step_s)
    released = allocator(life).release(None, given.id)
    assert isinstance(released, Released)
    assert (released.container, len(released.slots)) == (given.container, 2)
    assert (bookings(life), life.host.records) == ([], {})
    assert isinstance(allocator(life).release(None, given.id), NotAllocated)


def test_it_can_be_undone_as_a_whole_and_its_release_too() -> None:
    life = host()
    given = reserve(life, count=2)
    life.sweep()
    (entry,) = history(life)[:1]
    done = Undoer(life.host.world(), life.config).undo(entry.id, "ada")
    assert (done.refused, bookings(life), life.host.records) == (None, [], {})
    second = reserve(life, count=2)
    life.sweep()
    allocator(life).release(None, second.id)
    released = next(e for e in reversed(history(life)) if e.action == "release")
    assert released.booking == second.id != given.id
    assert Undoer(life.host.world(), life.config).undo(released.id, "ada").refused is None
    assert {name for name, _ in bookings(life)} == {second.container}
    assert len(bookings(life)) == 2


def test_whoever_gives_name_and_id_releases_only_what_both_name() -> None:
    life = host()
    mine, theirs = reserve(life), reserve(life, BOB)
    assert isinstance(allocator(life).release(mine.container, theirs.id), NotAllocated)
    assert len(bookings(life)) == 2


def test_a_booking_without_an_id_is_the_one_of_its_name_and_time() -> None:
    life = host().book("0.0")
    booking = identify_booking(NAME, life.host.records[NAME])
    life.host.records[NAME] = record(gpu_id="0.0", allocated_at=Wall(life.host.wall))
    assert isinstance(allocator(life).release(NAME, booking), NotAllocated)
    booking = identify_booking(NAME, life.host.records[NAME])
    assert isinstance(allocator(life).release(NAME, booking), Released)


@pytest.mark.parametrize("is_named", [True, False])
def test_its_container_ends_it_and_keeps_the_slots(step_s: float, *, is_named: bool) -> None:
    life = host()
    given = reserve(life, count=2)
    name = given.container if is_named else ContainerName("train._.1001")
    run_labelled(life.after(60.0).set_wall(step_s), given, name).after(2 * GRACE_S)
    assert bookings(life) == [(name, one.slot) for one in given.all_slots]
    again = reserve(life, container=name)
    assert again.id == given.id
    # With the clock set back the allocator by itself cannot know more; ds01d asks Docker.
    assert again.until == (None if step_s >= 0 else life.host.wall + GRACE_S)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_creation_under_way_at_its_end_is_waited_for(*, is_named: bool) -> None:
    """Docker does not answer for an hour; meanwhile the container was created."""
    life = host()
    given = reserve(life)
    life.after(GRACE_S - 30.0)
    life.fail(Source.DOCKER)
    name = given.container if is_named else ContainerName("train._.1001")
    run_labelled(life, given, name).after(3600.0)
    life.mend().after(300.0)
    assert bookings(life) == [(name, given.slot)]


def test_it_counts_for_the_quota_until_it_ends() -> None:
    life = host()
    first = reserve(life, count=2)
    answer = allocator(life).allocate(ALICE, ContainerName("more._.1001"))
    assert isinstance(answer, Rejected)
    assert answer.reason == "USER_AT_LIMIT (2/2)"
    allocator(life).release(None, first.id)
    answer = allocator(life).allocate(ALICE, None, count=3)
    assert isinstance(answer, Rejected)
    assert answer.reason == "USER_AT_LIMIT (0/2, 3 more asked for)"
    reserve(life)
    life.after(GRACE_S + 200.0)
    reserve(life, count=2)


def test_an_id_in_a_name_that_somebody_else_has_is_not_taken_over() -> None:
    life = host()
    mine = reserve(life)
    theirs = reserve(life, BOB, container=ContainerName(f"{mine.id}._.1002"))
    assert theirs.id != mine.id


def test_a_lost_record_has_the_id_of_its_name_again() -> None:
    life = host()
    given = reserve(life)
    life.sweep()
    del life.host.records[given.container]
    life.after(30.0)
    record = life.host.records[given.container]
    assert isinstance(record, Record)
    assert (record.booking, record.user) == (given.id, ALICE)
    copied = ContainerName(f"{given.id}._.1002")
    life.run("MIG-1-1", name=copied, labels={"ds01.managed": "true"}).after(60.0)
    other = life.host.records[copied]
    assert isinstance(other, Record)
    assert other.booking is None


USERS = {"a._.1001": ALICE, "b._.1002": BOB}
ACTS = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from([ALICE, BOB]), st.integers(1, 3)),
    st.tuples(st.just("release"), st.integers(0, 9)),
    st.tuples(st.just("claim"), st.integers(0, 9), st.sampled_from(["a._.1001", "b._.1002", "c"])),
    st.tuples(st.just("remove"), st.sampled_from(["a._.1001", "b._.1002", "c"])),
    st.tuples(st.just("pass"), st.sampled_from([3.0, 70.0, 400.0])),
    st.tuples(st.just("clock"), st.sampled_from([-DAY_S, DAY_S])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTS, max_size=14))
@example([("reserve", BOB, 1), ("claim", 0, "a._.1001"), ("pass", 70.0), ("remove", "a._.1001")])
def test_never_two_on_one_slot_and_never_a_slot_of_somebody_alive(acts: list[Any]) -> None:
    life = host()
    made: list[Allocated] = []
    # What they use is not theirs: they run beside whoever had reserved that slot, and are booked
    # beside them until the pass after their end.
    intruders = {"c"}
    for what, *details in acts:
        match what, details:
            case "reserve", [user, count]:
                answer = allocator(life).allocate(user, None, count=count)
                made += [answer] if isinstance(answer, Allocated) else []
            case "release", [number] if number < len(made):
                allocator(life).release(None, made[number].id)
            case "claim", [number, name] if number < len(made):
                if made[number].container in {name for name, _ in bookings(life)}:
                    run_labelled(life, made[number], name)
                    if made[number].user != USERS.get(name):
                        intruders.add(name)
            case "remove", [name]:
                life.remove(name) if name in running(life) else None
            case "pass", [seconds]:
                life.after(seconds)
            case "clock", [forward]:
                life.set_wall(forward)
            case _:
                pass
        waiting = {name for name, _ in bookings(life)} - {*running(life), *intruders}
        reserved = [slot for name, slot in bookings(life) if name in waiting]
        assert max(Counter(reserved).values(), default=0) <= 1
    life.after(3 * GRACE_S)
    used = {device for one in life.host.containers.values() for device in one.request.devices}  # type: ignore[union-attr]
    assert {slot for _, slot in bookings(life)} == {
        ref.text.removeprefix("MIG-").replace("-", ".") for ref in used
    }
    assert life.plan().drifts == ()


def running(life: Life) -> set[ContainerName]:
    return {container.name for container in life.host.containers.values()}
