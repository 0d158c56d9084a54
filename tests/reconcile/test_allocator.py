"""The allocator's transactions on a host in memory: all of it or nothing, whatever fails."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.adapters.books.operations_format import format_line
from ds01d.config import AllocatorConfig, Config
from ds01d.errors import BooksChanged, BooksUnreadable, Malformed, WriteFailed
from ds01d.model.actor import Actor
from ds01d.model.allocation import (
    Allocated,
    MarkedStopped,
    NoMetadata,
    NotAllocated,
    Refusal,
    Rejected,
    Released,
)
from ds01d.model.books import AllocatorState, BadRecord, Record, Unreadable
from ds01d.model.limits import GpuQuota
from ds01d.model.notice import NoticeRequest
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source, UserName, Wall
from ds01d.reconcile.allocator import Allocator
from tests.support.build import ALWAYS_UNLIMITED, books, four_slots, record, slot, two_by_two
from tests.support.world import WALL, Host

ALICE = UserName("alice")
NAME = ContainerName("train._.1001")


@pytest.fixture
def host() -> Host:
    return Host(gpu=two_by_two(), state=four_slots(), limits=ALWAYS_UNLIMITED)


def allocator(host: Host) -> Allocator:
    return Allocator(host.world(), Config())


def booked(host: Host) -> Allocated:
    answer = allocator(host).allocate(ALICE, NAME, 2, 10)
    assert isinstance(answer, Allocated)
    return answer


def test_a_booking_writes_state_then_metadata_then_the_log(host: Host) -> None:
    answer = booked(host)
    assert host.bookings() == {(NAME, answer.slot)}
    assert isinstance(host.state, AllocatorState)
    assert dict(host.state.slots[answer.slot].users) == {"alice": 1}
    there = host.records[NAME]
    assert isinstance(there, Record)
    assert (there.user, there.gpu_id, there.priority) == (ALICE, answer.slot, 10)
    assert (there.allocated_at, there.stopped_at) == (WALL, None)
    assert host.allocations == [
        f"ALLOCATED|alice|{NAME}|0.0|10|ALLOCATED mig_instance (now has 1 containers)"
    ]


def test_metadata_that_cannot_be_written_takes_the_booking_back(host: Host) -> None:
    before = host.state
    host.unwritable.add(f"metadata {NAME}")
    with pytest.raises(WriteFailed, match="no space left"):
        booked(host)
    assert isinstance(host.state, AllocatorState)
    assert isinstance(before, AllocatorState)
    assert host.state.slots == before.slots
    assert host.records == {}
    assert host.allocations == []


def test_metadata_that_cannot_be_removed_keeps_the_booking(host: Host) -> None:
    booked(host)
    before = host.bookings()
    host.unwritable.add(f"metadata {NAME}")
    with pytest.raises(WriteFailed, match="no space left"):
        allocator(host).release(NAME)
    assert host.bookings() == before


def test_a_state_that_cannot_be_put_back_is_told(host: Host) -> None:
    host.unwritable.add(f"metadata {NAME}")
    writes = []

    def fails_the_second_time() -> None:
        writes.append(1)
        if len(writes) > 1:
            raise WriteFailed("state: gone")

    host.before_write = fails_the_second_time
    with pytest.raises(WriteFailed, match=r"no space left.*could not be put back: state: gone"):
        booked(host)


def test_a_log_that_cannot_be_written_is_a_warning(host: Host) -> None:
    host.unwritable.add("allocations")
    assert booked(host).warnings == ("allocations was not written: no space left on device",)
    released = allocator(host).release(NAME)
    assert isinstance(released, Released)
    assert len(released.warnings) == 1
    assert host.bookings() == set()


def test_a_writer_without_the_lock_is_decided_upon_afresh(host: Host) -> None:
    def books_the_first_slot() -> None:
        host.before_write = None
        assert isinstance(host.state, AllocatorState)
        host.state = four_slots(_0_0="other")
        host.state = replace(host.state, digest=Digest("theirs"))

    host.before_write = books_the_first_slot
    assert booked(host).slot == "0.1"
    assert host.bookings() == {("other", "0.0"), (NAME, "0.1")}


def test_a_writer_who_never_rests_is_not_waited_for(host: Host) -> None:
    number = iter(range(100))

    def changes_it() -> None:
        assert isinstance(host.state, AllocatorState)
        host.state = replace(host.state, digest=Digest(f"theirs {next(number)}"))

    host.before_write = changes_it
    with pytest.raises(BooksChanged, match="another writer changed the books 5 times"):
        booked(host)
    assert host.bookings() == set()


def test_the_limits_say_what_the_caller_does_not(host: Host) -> None:
    host.limits = replace(ALWAYS_UNLIMITED, quotas={ALICE: 1}, priorities={ALICE: 33})
    first = allocator(host).allocate(ALICE, NAME)
    assert isinstance(first, Allocated)
    assert first.priority == 33
    second = allocator(host).allocate(ALICE, ContainerName("second"))
    assert isinstance(second, Rejected)
    assert second.reason == "USER_AT_LIMIT (1/1)"
    assert host.allocations[-1] == "REJECTED|alice|second||33|USER_AT_LIMIT (1/1)"
    host.failing.add(Source.LIMITS)
    third = allocator(host).allocate(UserName("bob"), ContainerName("third"))
    assert isinstance(third, Rejected)
    assert third.refusal is Refusal.LIMITS_UNREADABLE


def test_quotas_in_gpu_equivalents_count_whoever_books(host: Host) -> None:
    """MIG devices of a seventh: an operator's number takes the place of the user's, no other."""
    quota = GpuQuota(gpus=Fraction(1, 7), aggregate=Fraction(2, 7), slots_per_container=1)
    host.limits = replace(ALWAYS_UNLIMITED, default_gpu_quota=quota)
    assert isinstance(allocator(host).allocate(ALICE, NAME), Allocated)
    second = partial(allocator(host).allocate, ALICE, ContainerName("second"))
    host.failing.add(Source.NVML)  # it is not asked for a refusal
    refused = second()
    assert isinstance(refused, Rejected)
    assert refused.reason == "USER_AT_LIMIT (0.142857/0.142857)"
    refused = second(count=2, max_gpus=5)
    assert isinstance(refused, Rejected)
    assert refused.reason == "EXCEEDS_CONTAINER_LIMIT (2>1)"
    host.failing.clear()
    assert isinstance(second(max_gpus=5), Allocated)
    refused = allocator(host).allocate(ALICE, ContainerName("third"), 5)
    assert isinstance(refused, Rejected)
    assert refused.reason == "AGGREGATE_GPU_QUOTA_EXCEEDED (0.285714+0.142857>0.285714)"


def test_the_limit_is_told_without_a_look_at_the_gpus(host: Host) -> None:
    booked(host)
    host.failing.add(Source.NVML)
    at_limit = allocator(host).allocate(ALICE, ContainerName("second"), 1, 10)
    assert isinstance(at_limit, Rejected)
    assert at_limit.refusal is Refusal.USER_AT_LIMIT
    unknown = allocator(host).allocate(ALICE, ContainerName("second"), 2, 10)
    assert isinstance(unknown, Rejected)
    assert unknown.refusal is Refusal.INVENTORY_UNKNOWN


def test_a_record_as_last_read_refuses_nobody(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted for alice when it was read last; since then it is somebody else's."""
    host.state = four_slots(_0_0="first")
    host.records[ContainerName("first")] = record("first", "0.0", user=UserName("bob"))
    outdated = {ContainerName("first"): record("first", "0.0")}
    world = host.world()
    real = world.metadata.read
    monkeypatch.setattr(
        world.metadata, "read", lambda names=None: real() if names is None else dict(outdated)
    )
    monkeypatch.setattr(world.metadata, "is_current", lambda: True)
    answer = Allocator(world, Config()).allocate(ALICE, NAME, 1, 10)
    assert isinstance(answer, Allocated)


@pytest.mark.parametrize("source", [Source.STATE, Source.METADATA])
def test_books_that_are_not_known_are_an_error(host: Host, source: Source) -> None:
    host.failing.add(source)
    with pytest.raises(BooksUnreadable, match="does not answer"):
        booked(host)
    with pytest.raises(BooksUnreadable, match="does not answer"):
        allocator(host).release(NAME)


def test_a_broken_state_is_left_to_ds01d(host: Host) -> None:
    host.state = Unreadable(reason="gpu-state.json: empty", digest=Digest("broken"))
    with pytest.raises(BooksUnreadable, match="empty"):
        booked(host)


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a b", "-a", "a\n", "x" * 300])
def test_names_that_have_no_place_in_the_books(host: Host, name: str) -> None:
    with pytest.raises(Malformed, match="invalid container name"):
        allocator(host).allocate(ALICE, ContainerName(name), 2, 10)
    assert host.bookings() == set()


def test_what_a_booking_before_left_behind_is_overwritten(host: Host) -> None:
    host.records[NAME] = record(NAME, "1.1", stopped_at=Wall(WALL - 5), priority=1)
    booked(host)
    there = host.records[NAME]
    assert isinstance(there, Record)
    assert (there.gpu_id, there.stopped_at, there.priority) == ("0.0", None, 10)


def test_a_record_of_another_makes_no_difference(host: Host) -> None:
    """One corrupt file once stopped allocation for everybody."""
    bad = ContainerName("bad._.1002")
    host.records[bad] = BadRecord(container=bad, reason="", digest=Digest("b"), replaceable=True)
    host.state = four_slots(_0_0=bad)
    assert booked(host).slot == "0.1"
    assert isinstance(allocator(host).release(bad), Released)
    assert host.records.keys() == {NAME}


def test_a_record_that_may_not_be_replaced_refuses_the_booking(host: Host) -> None:
    host.records[NAME] = BadRecord(
        container=NAME, reason="it is a symbolic link", digest=Digest(""), replaceable=False
    )
    with pytest.raises(WriteFailed, match="symbolic link"):
        booked(host)
    assert host.bookings() == set()


def test_every_slot_is_given_back(host: Host) -> None:
    host.state = books(slot("0.0", NAME, "x", users={"alice": 1, "bob": 1}), slot("0.1", NAME))
    host.records = {
        NAME: record(NAME, "0.0"),
        ContainerName("x"): record("x", user=UserName("bob")),
    }
    answer = allocator(host).release(NAME)
    assert isinstance(answer, Released)
    assert answer.slots == ("0.0", "0.1")
    assert host.bookings() == {("x", "0.0")}
    assert isinstance(host.state, AllocatorState)
    assert dict(host.state.slots[SlotId("0.0")].users) == {"bob": 1}
    assert host.allocations == [f"RELEASED|alice|{NAME}|0.0,0.1|10|RELEASED (now has 1 containers)"]


def test_metadata_without_a_booking_goes_too(host: Host) -> None:
    host.records[NAME] = record(NAME)
    assert isinstance(allocator(host).release(NAME), NotAllocated)
    assert host.records == {}


def test_a_stop_is_noted_once_in_a_life(host: Host) -> None:
    booked(host)
    host.pass_time(10)
    first = allocator(host).mark_stopped(NAME)
    assert isinstance(first, MarkedStopped)
    assert not first.already
    host.pass_time(10)
    second = allocator(host).mark_stopped(NAME)
    assert isinstance(second, MarkedStopped)
    assert second.already
    there = host.records[NAME]
    assert isinstance(there, Record)
    assert there.stopped_at == WALL + 10
    third = allocator(host).mark_stopped(NAME, started=Wall(WALL + 15))
    assert isinstance(third, MarkedStopped)
    assert not third.already
    there = host.records[NAME]
    assert isinstance(there, Record)
    assert there.stopped_at == WALL + 20
    assert isinstance(allocator(host).mark_stopped(ContainerName("nobody")), NoMetadata)


def test_a_stop_of_a_life_before_does_not_count(host: Host) -> None:
    host.records[NAME] = record(NAME, allocated_at=Wall(WALL - 10), stopped_at=Wall(WALL - 99))
    assert isinstance(allocator(host).mark_stopped(NAME), MarkedStopped)
    there = host.records[NAME]
    assert isinstance(there, Record)
    assert there.stopped_at == WALL


def test_sharing_is_told_in_the_log(host: Host) -> None:
    host.state = books(slot("0.0", "a"))
    assert booked(host).shared_with == ("a",)
    assert host.allocations[-1].endswith(
        "ALLOCATED mig_instance (now has 2 containers); no slot was free: shared with a"
    )


def test_the_operations_log_says_who_booked_gave_back_and_noted_a_stop(host: Host) -> None:
    """Whoever calls, for whomever: the uid, login and pid of the process, and sudo's claim."""
    host.actor = Actor(uid=0, login="root", pid=77, sudo_uid=1002, sudo_login="bob")
    slot = booked(host).slot
    allocator(host).mark_stopped(NAME)
    allocator(host).release(NAME)
    refused = allocator(host).allocate(ALICE, NAME, 0, 10)
    assert isinstance(refused, Rejected)
    assert [
        (line.operation, line.user, line.container, line.gpu, line.status)
        for line in host.operations
    ] == [
        ("allocate", "alice", NAME, slot, "success"),
        ("mark-stopped", "alice", NAME, slot, "success"),
        ("release", "alice", NAME, slot, "success"),
        ("allocate", "alice", NAME, "N/A", "refused"),
    ]
    assert all(line.actor == host.actor for line in host.operations)
    assert format_line(host.operations[0]).endswith(
        "; by root (uid 0, pid 77), sudo by bob (uid 1002)"
    )


def test_an_operations_log_that_cannot_be_written_is_a_warning_too(host: Host) -> None:
    host.unwritable.add("operations")
    answer = booked(host)
    assert host.bookings() == {(NAME, answer.slot)}
    assert answer.warnings == ("operations was not written: no space left on device",)


PLACES = ("0.0", "0.1", "1.0", "1.1")
WISHES = st.tuples(
    st.none() | st.sampled_from([*PLACES, "9.9"]),
    st.integers(1, 5),
    st.none() | st.sampled_from(["1g.10gb", "7g.80gb", "physical_gpu"]),
).map(lambda wish: (wish[0], 1 if wish[0] else wish[1], wish[2]))


@settings(max_examples=100)
@given(st.sets(st.sampled_from(PLACES)), WISHES, st.none() | st.integers(0, 4), st.booleans())
def test_a_preview_of_a_request_is_what_a_booking_then_gets(
    held: set[str], wish: tuple[str | None, int, str | None], quota: int | None, shares: bool
) -> None:
    """A notice comes by the preview: one that differs would call people for nothing."""
    slots = (slot(place, *(["x._.1003"] if place in held else ()), users={}) for place in PLACES)
    host = Host(
        gpu=two_by_two(),
        state=books(*slots),
        limits=replace(ALWAYS_UNLIMITED, default_quota=quota),
    )
    config = Config(allocator=AllocatorConfig(sharing="when-full" if shares else "never"))
    one = Allocator(host.world(), config)
    place, count, profile = wish
    wanted = None if place is None else SlotId(place)
    asked = NoticeRequest(
        user=ALICE, slot=wanted, count=count, profile=profile, since=Wall(0.0), until=Wall(1.0)
    )
    before = host.state
    (preview,) = one.preview_requests([asked], host.world().clock.now())
    assert host.state == before
    assert host.allocations == []
    answer = one.allocate(ALICE, NAME, slot=wanted, count=count, profile=profile)
    if isinstance(preview, Rejected):
        assert isinstance(answer, Rejected)
        assert answer.reason == preview.reason
    else:
        assert isinstance(answer, Allocated)
        assert [s.slot for s in answer.all_slots] == [s.slot for s in preview.all_slots]
