"""One container with three slots, from its booking to its end, whatever the books are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ds01d.cli.allocator.lines import user_status_lines
from ds01d.decide.bookings import count_bookings
from ds01d.decide.history_outcomes import join_entries
from ds01d.model.allocation import Allocated, MarkedStopped, Rejected, Released
from ds01d.model.books import MISSING, AllocatorState, Record, Unreadable
from ds01d.model.drift import Kind
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import ContainerName, UserName
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.booking_history import BookingHistory, fingerprint_answer
from ds01d.reconcile.docker_books import with_current_books
from ds01d.reconcile.history import read_entries
from ds01d.reconcile.undo import Undoer
from tests.support.build import NAME, Life, books, config, slot, whole, with_docker_books

ALICE, HOLD_S = UserName("alice"), 900.0
LIMITS = Limits(holds={}, unknown_user=HoldRule(seconds=HOLD_S, source="defaults"), default_quota=4)
THREE = ("0", "1", "2")
DEVICES = ("GPU-0", "GPU-1", "GPU-2")


def of_files() -> Life:
    state = books(*(slot(str(n)) for n in range(4)))
    return Life(config(), gpu=whole(4), state=state, limits=LIMITS, passwd={1001: "alice"})


def of_docker() -> Life:
    nothing = Unreadable(reason="no such file", digest=MISSING)
    known = {"gpu": whole(4), "state": nothing, "limits": LIMITS, "passwd": {1001: "alice"}}
    return Life(with_docker_books(config()), **known)


KINDS = pytest.mark.parametrize("make", [of_files, of_docker], ids=["files", "docker"])
Make = Callable[[], Life]


def allocator(life: Life) -> Allocator:
    return Allocator(with_current_books(life.host.world(), life.config), life.config)


def held(life: Life) -> set[str]:
    state = life.plan().decision.snapshot.state
    assert isinstance(state, AllocatorState)
    return {place.id for place in state.slots.values() if NAME in place.containers}


def charged(life: Life) -> int:
    snapshot = life.plan().decision.snapshot
    assert isinstance(snapshot.state, AllocatorState)
    assert isinstance(snapshot.metadata, dict)
    return count_bookings(ALICE, snapshot.state, snapshot.metadata)


def running(make: Make) -> Life:
    life = make().after(60.0)
    answer = allocator(life).allocate(ALICE, NAME, count=3)
    assert isinstance(answer, Allocated)
    assert tuple(given.slot for given in answer.all_slots) == THREE
    life.run(*DEVICES, created_ago=0.0, started_ago=0.0)
    return life.after(1200.0)


@KINDS
def test_its_booking_counts_three_times_and_is_all_or_nothing(make: Make) -> None:
    life = running(make)
    assert (held(life), charged(life)) == ({*THREE}, 3)
    assert life.plan().drifts == ()
    more = allocator(life).allocate(ALICE, ContainerName("more._.1001"), count=2)
    assert isinstance(more, Rejected)
    assert more.reason == "USER_AT_LIMIT (3/4, 2 more asked for)"
    assert more.holdings == f"alice holds 0 ({NAME}), 1 ({NAME}), 2 ({NAME})"
    again = allocator(life).allocate(ALICE, NAME, count=3)
    assert isinstance(again, Allocated)
    assert (again.already, len(again.all_slots)) == (True, 3)
    assert isinstance(allocator(life).allocate(ALICE, ContainerName("one._.1001")), Allocated)


@KINDS
def test_stopped_it_keeps_all_of_them_and_loses_them_together(make: Make) -> None:
    life = running(make).stop().after(60.0)
    assert held(life) == {*THREE}
    life.after(HOLD_S + 120.0)
    assert held(life) == set()
    assert charged(life) == 0


@KINDS
def test_removed_it_has_none_of_them(make: Make) -> None:
    life = running(make).remove().after(60.0)
    assert (held(life), charged(life)) == (set(), 0)


@KINDS
def test_an_undo_brings_back_all_of_them(make: Make) -> None:
    """They were released together, by one pass or by hand: one entry is enough."""
    life = running(make).stop().after(HOLD_S + 120.0)
    assert held(life) == set()
    entry = next(
        one.entry.id
        for one in reversed(join_entries(read_entries(life.host.history)))
        if one.entry.kind == Kind.EXPIRED_HOLD.value
    )
    undone = Undoer(life.host.world(), life.config).undo(entry, "ada")
    assert undone.refused is None
    assert held(life) == {*THREE}


def test_an_undo_of_a_release_by_hand_brings_back_all_of_them() -> None:
    life = running(of_files)
    (container,) = life.host.containers.values()
    history = BookingHistory(life.host.world(), fingerprint_answer(NAME, container))
    by_hand = Allocator(life.host.world(), life.config, history)
    released = by_hand.release(NAME)
    assert isinstance(released, Released)
    assert released.slots == THREE
    entry = join_entries(read_entries(life.host.history))[-1].entry.id
    assert Undoer(life.host.world(), life.config).undo(entry, "ada").refused is None
    assert life.host.bookings() == {(str(NAME), place) for place in THREE}


def test_a_stop_is_logged_with_all_of_them() -> None:
    life = running(of_files)
    assert isinstance(allocator(life).mark_stopped(NAME), MarkedStopped)
    assert any("|0,1,2|" in line or " 0,1,2 " in line for line in life.host.allocations)


def test_one_that_lost_its_booking_gets_all_of_them_back() -> None:
    """Its record names the first; its request the others."""
    life = running(of_files).stop()
    life.host.state = books(*(slot(str(n)) for n in range(4)))
    life.after(120.0)
    assert held(life) == {*THREE}
    record = life.host.records[NAME]
    assert isinstance(record, Record)
    assert record.gpu_id == "0"


def test_user_status_counts_containers_once() -> None:
    rows = [(place, str(NAME), 10) for place in THREE]
    assert list(user_status_lines("alice", 3, rows))[1] == (
        "alice: 3 GPU/MIG instances across 1 containers"
    )
