"""Bookings of hosts that share a store: reserved there first, then made, then confirmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from ds01d.errors import BooksUnreadable
from ds01d.model.books import AllocatorState
from ds01d.model.fleet_books import Conflict, ConflictKind, EntryPhase, FleetEntry
from ds01d.model.limits import GpuQuota
from ds01d.model.primitives import SlotId, UserName
from tests.support.build import Life, books, gpu, inventory, mig, slot
from tests.support.fleet_hosts import FleetHost, fleet_config, limits, refusal, user
from tests.support.fleet_memory_store import StoreInMemory, StoreView

A, B, C = "a._.1001", "b._.1001", "c._.1001"
MakeHost = Callable[..., FleetHost]


@pytest.fixture
def store() -> StoreInMemory:
    return StoreInMemory()


def make_host(store: StoreInMemory, name: str, **how: object) -> FleetHost:
    host = FleetHost(name, StoreView(store), **how)  # type: ignore[arg-type]
    host.sweep()
    host.sync()
    return host


@pytest.fixture
def one(store: StoreInMemory) -> FleetHost:
    return make_host(store, "gpu01")


@pytest.fixture
def two(store: StoreInMemory) -> FleetHost:
    return make_host(store, "gpu02")


def phases(store: StoreInMemory) -> dict[str, EntryPhase]:
    return {str(entry.container): entry.phase for entry in store.entries.values()}


def test_it_is_reserved_then_booked_then_confirmed(one: FleetHost, store: StoreInMemory) -> None:
    asked = one.begin("Allocate", container=A)
    assert (asked.replies, one.booked, store.entries) == ([], set(), {})
    one.step_job()
    assert (one.booked, phases(store)) == (set(), {A: EntryPhase.RESERVED})
    one.service.serve_reserved()
    assert one.booked == {(A, "0")}
    booking = asked.last["parameters"]["booking"]
    assert booking["slot"] == "0"
    one.serve_jobs()
    ((_, _, key),) = store.entries
    assert (key, phases(store)) == (booking["id"], {A: EntryPhase.HELD})
    (entry,) = store.entries.values()
    assert (entry.count, entry.sevenths, entry.slots) == (1, 7, ("0",))
    assert [what for what, _ in store.changes] == ["reserve", "confirm"]


def test_the_quota_counts_over_all_hosts(one: FleetHost, two: FleetHost) -> None:
    one.allocate(A)
    two.allocate(B)
    two.sync()
    assert refusal(two.allocate(C)) == "USER_AT_LIMIT (2/2 on gpu02, gpu01)"
    assert "parameters" in two.allocate("x._.1002", by="bob")
    one.release(A)
    one.sync()
    assert two.allocate(C)["parameters"]["booking"]["slot"] == "2"


def test_gpu_equivalents_count_over_all_hosts(one: FleetHost, two: FleetHost) -> None:
    for host in (one, two):
        host.life.host.limits = limits(None, GpuQuota(gpus=Fraction(1)))
    one.allocate(A)
    two.sync()
    assert refusal(two.allocate(B)) == "USER_AT_LIMIT (1/1 on gpu01)"


def test_a_local_refusal_costs_no_network(one: FleetHost) -> None:
    one.allocate(A)
    one.allocate(B)
    book = one.book
    assert isinstance(book, StoreView)
    book.calls.clear()
    assert refusal(one.allocate(C)) == "USER_AT_LIMIT (2/2)"
    assert one.allocate(A)["parameters"]["booking"]["already"]
    assert book.calls == []


def test_no_name_is_taken_twice(one: FleetHost, two: FleetHost) -> None:
    one.allocate(A)
    two.sync()
    assert refusal(two.allocate(A)) == f"NAME_TAKEN ({A} on gpu01)"
    assert two.booked == set()


def test_two_calls_at_once_are_not_over_the_quota_in_the_store(
    one: FleetHost, store: StoreInMemory
) -> None:
    one.life.host.limits = limits(1)
    first, second = one.begin("Allocate", container=A), one.begin("Allocate", container=B)
    one.step_job()
    one.step_job()
    assert store.count("alice") == 1
    one.serve_jobs()
    assert "booking" in first.last["parameters"]
    assert refusal(second.last) == "USER_AT_LIMIT (1/1 on gpu01)"
    assert (len(one.booked), phases(store)) == (1, {A: EntryPhase.HELD})


def test_what_is_refused_here_after_all_is_withdrawn(one: FleetHost, store: StoreInMemory) -> None:
    for name in (A, B):
        one.begin("Allocate", container=name, slot="1")
    one.serve_jobs()
    assert (one.booked, phases(store)) == ({(A, "1")}, {A: EntryPhase.HELD})
    assert B not in store.names


def test_a_slot_given_back_can_be_had_again_at_once(one: FleetHost, store: StoreInMemory) -> None:
    """And the store is over the quota at no moment."""
    one.life.host.limits = limits(1)
    one.allocate(A)
    one.release(A)
    assert store.count("alice") == 1  # of this host, and not withdrawn yet
    assert one.allocate(B)["parameters"]["booking"]["slot"] == "0"
    assert [what for what, _ in store.changes] == [
        "reserve",
        "confirm",
        "withdraw",
        "reserve",
        "confirm",
    ]
    assert phases(store) == {B: EntryPhase.HELD}


def test_a_further_slot_is_joined_to_the_entry_of_its_container(
    one: FleetHost, store: StoreInMemory
) -> None:
    one.allocate(A)
    one.allocate(A, another=True)
    (entry,) = store.entries.values()
    assert (entry.container, entry.count, entry.slots) == (A, 2, ("0", "1"))
    assert set(store.names) == {A}
    assert refusal(one.allocate(A, another=True)) == "USER_AT_LIMIT (2/2)"


def test_several_slots_are_one_entry(one: FleetHost, two: FleetHost, store: StoreInMemory) -> None:
    one.allocate(A, count=2)
    (entry,) = store.entries.values()
    assert (entry.count, entry.sevenths) == (2, 14)
    assert refusal(two.allocate(B)).startswith("USER_AT_LIMIT (2/2 on ")


# --- the store is away


def test_without_the_store_the_limits_of_the_host_count(
    one: FleetHost, two: FleetHost, store: StoreInMemory
) -> None:
    one.life.host.limits = two.life.host.limits = limits(1)
    one.allocate(A)
    book = two.book
    assert isinstance(book, StoreView)
    book.is_away = True
    assert two.allocate(B)["parameters"]["booking"]["slot"] == "0"
    calls = len(book.calls)
    assert refusal(two.allocate(C)) == "USER_AT_LIMIT (1/1)"
    two.release(B)
    two.allocate(C)
    assert len(book.calls) == calls  # nobody waits for it while it is known to be away
    book.is_away = False
    two.settle()
    assert phases(store) == {A: EntryPhase.HELD, C: EntryPhase.HELD}
    assert two.findings() == {"over-quota alice": "2 of 1 slots over all hosts"}
    assert two.booked == {(C, "0")}


def test_or_nothing_is_booked(store: StoreInMemory) -> None:
    host = make_host(store, "gpu01", when_away="refuse")
    host.allocate(A)
    assert isinstance(host.book, StoreView)
    host.book.is_away = True
    assert refusal(host.allocate(B)) == (
        "cannot reserve in the store of the fleet: cannot reach etcd: timed out after 2 s; nothing"
        ' is booked meanwhile (fleet.when_away = "refuse")'
    )
    assert host.allocate(A)["parameters"]["booking"]["already"]
    assert host.release(A)["parameters"]["slots"] == ["0"]
    assert host.booked == set()


@pytest.mark.parametrize("when_away", ["local", "refuse"])
def test_a_user_of_whom_there_is_too_much_is_refused_and_nobody_else(
    store: StoreInMemory, when_away: str
) -> None:
    """Else anybody with many keys there would have all bookings go by the hosts' own limits."""
    host = make_host(store, "gpu01", when_away=when_away)
    assert isinstance(host.book, StoreView)
    host.book.uncounted = {UserName("alice")}
    assert refusal(host.allocate(A)) == (
        "the store of the fleet: what alice has there cannot be counted: too much in etcd"
    )
    assert host.allocate("x._.1002", by="bob")["parameters"]["booking"]["slot"] == "0"
    assert [entry.user for entry in store.entries.values()] == ["bob"]
    assert host.booked == {("x._.1002", "0")}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("when_away", ["local", "refuse"])
def test_a_lost_answer_leaves_nothing_wrong(
    store: StoreInMemory, when: str, when_away: str
) -> None:
    host = make_host(store, "gpu01", when_away=when_away)
    assert isinstance(host.book, StoreView)
    host.book.failures = [when]
    host.allocate(A)
    assert host.booked == ({(A, "0")} if when_away == "local" else set())
    host.settle()
    expected = {A: EntryPhase.HELD} if when_away == "local" else {}
    assert (phases(store), set(store.names)) == (expected, set(expected))
    assert host.kinds() == set()


# --- the queue


def test_who_waits_gets_what_another_host_gives_back(
    one: FleetHost, two: FleetHost, store: StoreInMemory
) -> None:
    one.life.host.limits = two.life.host.limits = limits(1)
    one.allocate(A)
    two.sync()
    waiting = two.begin("Allocate", more=True, container=B, wait=True)
    two.serve_jobs()
    assert waiting.last["parameters"]["waiting"]["reason"] == "USER_AT_LIMIT (1/1 on gpu01)"
    assert 0 < two.service.wait_s() <= 5
    one.release(A)
    one.sync()
    end_rests(two)
    two.service._serve_waiting()
    two.serve_jobs()
    assert waiting.last["parameters"]["booking"]["slot"] == "0"
    assert phases(store) == {B: EntryPhase.HELD}
    assert len(two.queue) == 0


def end_rests(host: FleetHost) -> None:
    for waiter in host.queue:
        waiter.rests_until = 0.0


@pytest.mark.parametrize("obstacle", ["quota", "malformed"])
def test_who_gets_nothing_from_the_store_stands_in_nobodys_way(
    one: FleetHost, store: StoreInMemory, obstacle: str
) -> None:
    if obstacle == "quota":
        one.allocate(A)
        one.allocate(C)
    two = make_host(store, "gpu02", slots=1)
    two.allocate("x._.1002", by="bob")
    first = two.begin("Allocate", more=True, container=B, wait=True)
    second = two.begin("Allocate", more=True, by="bob", container="y._.1002", wait=True)
    if obstacle == "malformed":
        store.malformed["/ds01/v1/users/alice/held/n9/b9"] = "spoilt"
    two.release("x._.1002", by="bob")
    for _ in range(3):
        two.service._serve_waiting()
        two.serve_jobs()
    assert first.last["parameters"]["booking"] is None
    assert second.last["parameters"]["booking"]["slot"] == "0"
    # And it has another turn by itself.
    two.service._serve_waiting()
    assert 0 < two.service.wait_s() <= 5


def test_who_hangs_up_costs_nobody_the_time_of_the_store(one: FleetHost) -> None:
    book = one.book
    assert isinstance(book, StoreView)
    for number in range(20):
        asked = one.begin("Allocate", container=f"x{number}._.1001")
        assert asked.request is not None
        asked.request.withdraw()
    book.calls.clear()
    asked = one.begin("Allocate", container=B)
    one.serve_jobs()
    assert book.calls == ["read_user", "reserve", "confirm"]
    assert asked.last["parameters"]["booking"]["slot"] == "0"
    assert one.reservations.in_flight.list_bookings() == []


@pytest.mark.parametrize("name", [A, "r-0123456789ab._.1001"])
def test_two_calls_for_one_booking_do_not_end_each_other(
    one: FleetHost, store: StoreInMemory, name: str
) -> None:
    first, second = (one.begin("Allocate", container=name) for _ in range(2))
    one.serve_jobs()
    assert first.last["parameters"]["booking"]["slot"] == "0"
    assert "right now: try again" in refusal(second.last)
    assert phases(store) == {name: EntryPhase.HELD}
    assert (one.reservations.in_flight.list_bookings(), one.session.bookings._pending) == ([], {})
    assert one.allocate(name)["parameters"]["booking"]["already"]


def test_a_further_slot_of_a_reserved_name_is_counted_by_the_fence(
    one: FleetHost, store: StoreInMemory
) -> None:
    """Its name has the ID of the entry that is there: that one must not pass for it."""
    name = "r-0123456789ab._.1001"
    one.allocate(name)
    one.allocate(name, another=True)
    assert [what for what, _ in store.changes].count("reserve") == 2
    (entry,) = store.entries.values()
    assert (entry.container, entry.count) == (name, 2)


def test_a_store_that_is_slow_holds_up_the_others_for_a_while_only(
    one: FleetHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = one.book
    assert isinstance(book, StoreView)
    monkeypatch.setattr("ds01d.reconcile.fleet_booking.PATIENCE_S", -1.0)
    monkeypatch.setattr(book, "reserve_entry", lambda *_: Conflict(kind=ConflictKind.FENCE))
    book.calls.clear()
    assert "try again" in refusal(one.allocate(A))
    assert book.calls == ["read_user"]


class _NeverSet(threading.Event):
    """Time passes at once; `waits`: how long each call would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        time.sleep(0.01)
        return False


def test_calls_do_not_wait_one_after_the_other_until_the_host_has_joined(
    store: StoreInMemory,
) -> None:
    host = FleetHost("gpu01", StoreView(store))
    host.sweep()
    host.reservations.has_joined = joined = _NeverSet()
    host.allocate(A)
    host.allocate(B)
    assert host.booked == {(A, "0"), (B, "1")}
    first, second = joined.waits
    assert 0 <= second < first <= 2


def test_who_is_gone_gets_nothing(one: FleetHost, store: StoreInMemory) -> None:
    asked = one.begin("Allocate", container=A)
    one.step_job()
    assert asked.request is not None
    asked.request.withdraw()
    one.service.serve_reserved()
    one.serve_jobs()
    assert (one.booked, store.entries, store.names) == (set(), {}, {})


def test_the_order_of_the_queue_is_kept(one: FleetHost) -> None:
    one.life.host.limits = limits(4)
    for name in "xyz":
        one.allocate(f"{name}._.1002", by="bob")
    first = one.begin("Allocate", more=True, container=A, wait=True)
    second = one.begin("Allocate", more=True, container=B, wait=True)
    one.release("y._.1002", by="bob")
    one.service._serve_waiting()
    one.serve_jobs()
    assert first.last["parameters"]["booking"]["slot"] == "1"
    assert second.last["parameters"]["booking"] is None


# --- what changes between reservation and booking


@pytest.fixture
def mixed(store: StoreInMemory) -> FleetHost:
    """A host with a small and two large MIG devices."""
    profiles = {"0.0": "1g.10gb", "0.1": "3g.40gb", "0.2": "3g.40gb"}
    slots = [slot(name, uuid=f"MIG-{name}", profile=text) for name, text in profiles.items()]
    devices = tuple(
        replace(mig(0, number, uuid=f"MIG-0.{number}"), profile=profiles[f"0.{number}"])
        for number in range(3)
    )
    life = Life(
        fleet_config(),
        gpu=inventory(gpu(0, mig=True), *devices),
        state=books(*slots),
        limits=limits(None, GpuQuota(gpus=Fraction(3, 7))),
    )
    return make_host(store, "gpu01", life=life)


def test_what_counts_more_than_was_reserved_is_reserved_anew(
    mixed: FleetHost, store: StoreInMemory
) -> None:
    asked = mixed.begin("Allocate", container=A)
    mixed.step_job()
    (entry,) = store.entries.values()
    assert entry.sevenths == 1
    mixed.life.book("0.0", name="x._.1002", user="bob")
    mixed.serve_jobs()
    assert asked.last["parameters"]["booking"]["slot"] == "0.1"
    (entry,) = store.entries.values()
    assert (entry.sevenths, entry.slots) == (3, ("0.1",))
    assert [what for what, _ in store.changes] == ["reserve", "withdraw", "reserve", "confirm"]


def test_also_where_the_quota_does_not_allow_it_then(
    mixed: FleetHost, store: StoreInMemory
) -> None:
    mixed.life.host.limits = limits(None, GpuQuota(gpus=Fraction(1, 7)))
    asked = mixed.begin("Allocate", container=A)
    mixed.step_job()
    mixed.life.book("0.0", name="x._.1002", user="bob")
    mixed.serve_jobs()
    assert "USER_AT_LIMIT" in refusal(asked.last)
    assert (store.entries, store.names) == ({}, {})


@pytest.mark.parametrize("how", ["direct", "adopted"])
@pytest.mark.parametrize("reserved", [False, True])
def test_what_was_booked_here_meanwhile_counts_too(
    one: FleetHost, two: FleetHost, store: StoreInMemory, how: str, reserved: bool
) -> None:
    """A reservation counts this host as it was when it was asked for."""
    two.allocate(A)
    asked = one.begin("Allocate", container=B)
    if reserved:
        one.step_job()
    if how == "adopted":
        one.life.book("2", name=C, user="alice")
    else:
        book = one.book
        assert isinstance(book, StoreView)
        book.is_away = True
        one.sync()
        assert one.begin("Allocate", container=C).last["parameters"]["booking"]
        book.is_away = False
        one.sync()
    one.serve_jobs()
    assert refusal(asked.last).startswith("USER_AT_LIMIT (2/2")
    one.settle()
    assert phases(store) == {A: EntryPhase.HELD, C: EntryPhase.HELD}
    assert one.findings() == {}


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_booking_without_a_record_is_not_left_out(
    one: FleetHost, two: FleetHost, store: StoreInMemory, meanwhile: bool
) -> None:
    """This host counts it by the counters of its slot; nobody else could."""
    two.allocate(A)
    asked = one.begin("Allocate", container=B) if meanwhile else None
    one.life.list_in("0", name=C)
    state = one.life.host.state
    assert isinstance(state, AllocatorState)
    counted = replace(state.slots[SlotId("0")], users={user("alice"): 1})
    slots = {**state.slots, counted.id: counted}
    one.life.host.state = replace(state, slots=slots)
    asked = asked or one.begin("Allocate", container=B)
    one.serve_jobs()
    assert "1 of the bookings of alice on this host have no record" in refusal(asked.last)
    # Of others it is no matter.
    assert "booking" in one.allocate("x._.1002", by="bob")["parameters"]


def test_what_was_reserved_before_is_no_reason_to_reserve_again(
    one: FleetHost, store: StoreInMemory
) -> None:
    one.life.host.limits = limits(3)
    one.allocate(A)
    asked = [
        one.begin("Allocate", container=A, another=True),
        one.begin("Allocate", container=B),
    ]
    one.step_job()
    one.step_job()
    one.serve_jobs()
    assert all("booking" in call.last["parameters"] for call in asked)
    assert [what for what, _ in store.changes].count("reserve") == 3


def test_books_that_cannot_be_read_right_after_it_are_no_failure_of_the_booking(
    one: FleetHost, store: StoreInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = one.begin("Allocate", container=A)
    one.step_job()
    transactions = one.session.bookings._transactions
    monkeypatch.setattr(transactions, "read_books", _fail)
    one.serve_jobs()
    assert asked.last["parameters"]["booking"]["slot"] == "0"
    monkeypatch.undo()
    assert phases(store) == {A: EntryPhase.RESERVED}
    one.settle()
    assert phases(store) == {A: EntryPhase.HELD}


def _fail(*_: object) -> None:
    raise BooksUnreadable("torn")


# --- between a booking and the moment at which the books are shown


RESERVED = "r-0123456789ab._.1001"


def book_without_showing(host: FleetHost, container: str, **how: bool) -> None:
    """As in the daemon, which shows the books once it has served the calls that wait."""
    host.begin("Allocate", container=container, **how)  # type: ignore[arg-type]
    host.step_job()
    host.service.serve_reserved()
    host.step_job()


def test_a_reserved_name_that_is_used_again_is_a_living_booking(
    one: FleetHost, two: FleetHost, store: StoreInMemory
) -> None:
    one.allocate(RESERVED)
    one.release(RESERVED)
    one.sync()
    assert store.entries == {}
    book_without_showing(one, RESERVED)
    assert phases(store) == {RESERVED: EntryPhase.HELD}
    # ds01d released a booking of this ID a moment ago, and what it shows has none of it now.
    one.sync()
    assert phases(store) == {RESERVED: EntryPhase.HELD}
    two.allocate(A)
    assert refusal(two.allocate(B)) == "USER_AT_LIMIT (2/2 on gpu02, gpu01)"
    one.show_changes()
    assert one.reservations.in_flight.list_bookings() == []
    one.sync()
    assert (one.kinds(), phases(store)) == (
        set(),
        {RESERVED: EntryPhase.HELD, A: EntryPhase.HELD},
    )


def test_that_it_was_released_once_proves_nothing_of_the_next_one(one: FleetHost) -> None:
    one.allocate(RESERVED)
    one.release(RESERVED)
    assert one.worker._local.released == {"r-0123456789ab"}
    one.begin("Allocate", container=RESERVED)
    assert one.worker._local.released == frozenset()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_pass_that_withdraws_meets_no_reservation_of_that_name(
    one: FleetHost, store: StoreInMemory, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    one.allocate(RESERVED)
    one.release(RESERVED)
    book, replies = one.book, []
    assert isinstance(book, StoreView)
    withdraw = book.withdraw_entry

    def withdraw_slowly(entry: FleetEntry, **how: bool) -> object:
        monkeypatch.undo()
        changed = withdraw(entry, **how) if when == "after" else None
        asked = one.begin("Allocate", container=RESERVED)
        one.serve_jobs()
        replies.append(asked.last)
        return changed or withdraw(entry, **how)

    monkeypatch.setattr(book, "withdraw_entry", withdraw_slowly)
    one.sync()
    assert refusal(replies[0]).endswith("is being withdrawn: try again")
    assert (one.booked, store.entries, store.names) == (set(), {}, {})
    one.allocate(RESERVED)
    assert phases(store) == {RESERVED: EntryPhase.HELD}


def test_a_further_slot_counts_once_and_its_entry_is_left_alone(
    one: FleetHost, store: StoreInMemory
) -> None:
    one.life.host.limits = limits(3)
    one.allocate(A)
    book_without_showing(one, A, another=True)
    (entry,) = store.entries.values()
    assert entry.count == 2
    # What is shown has one slot of it, and is older.
    assert entry.booking in one.reservations.in_flight.list_bookings()
    one.life.host.pass_time(60)
    one.sync()
    assert one.kinds() == set()
    asked = one.begin("Allocate", container=B)
    one.serve_jobs()
    assert asked.last["parameters"]["booking"]["slot"] == "2"
    assert one.reservations.in_flight.list_bookings() == []
