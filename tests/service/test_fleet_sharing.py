"""Two containers of a user on one shared slot, which counts for one of them: on all hosts, too."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.config import AllocatorConfig
from ds01d.model.limits import GpuQuota
from tests.support.build import Life, books, slot, whole
from tests.support.fleet_hosts import FleetHost, fleet_config, limits, refusal
from tests.support.fleet_memory_store import StoreInMemory, StoreView

A, B, C, D = (f"{name}._.1001" for name in "abcd")
QUOTA = 2


@pytest.fixture
def store() -> StoreInMemory:
    return StoreInMemory()


@pytest.fixture
def one(store: StoreInMemory) -> FleetHost:
    """Its only slot is shared by all that come."""
    return make_host(store, "gpu01", slots=1)


@pytest.fixture
def two(store: StoreInMemory) -> FleetHost:
    return make_host(store, "gpu02", slots=3)


def make_host(
    store: StoreInMemory, name: str, *, slots: int, when_away: str = "refuse"
) -> FleetHost:
    settings_ = msgspec.structs.replace(fleet_config(when_away), allocator=AllocatorConfig())
    life = Life(
        settings_,
        gpu=whole(slots),
        state=books(*(slot(str(n), uuid=f"GPU-{n}") for n in range(slots))),
        limits=limits(None, GpuQuota(gpus=Fraction(QUOTA))),
        passwd={1001: "alice", 1002: "bob"},
    )
    host = FleetHost(name, StoreView(store), life=life)
    host.sweep()
    host.sync()
    return host


def sevenths(store: StoreInMemory) -> dict[str, int]:
    return {str(entry.container): entry.sevenths for entry in store.entries.values()}


def changes(store: StoreInMemory) -> list[tuple[str, str]]:
    return [(what, str(entry.container)) for what, entry in store.changes]


def test_a_shared_slot_counts_also_after_the_first_container_has_left(
    one: FleetHost, two: FleetHost, store: StoreInMemory
) -> None:
    one.allocate(A)
    one.allocate(B)
    one.sync()
    assert sevenths(store) == {A: 7, B: 0}
    one.release(A)
    store.changes.clear()
    one.sync()
    assert sevenths(store) == {B: 7}
    # Never too little in between.
    assert changes(store) == [("confirm", B), ("withdraw", A)]
    two.allocate(C)
    assert refusal(two.allocate(D)) == "USER_AT_LIMIT (2/2 on gpu02, gpu01)"


def test_also_where_the_next_booking_withdraws_what_is_left(
    one: FleetHost, store: StoreInMemory
) -> None:
    one.allocate(A)
    one.allocate(B)
    one.release(A)
    store.changes.clear()
    one.allocate(C)
    assert changes(store)[:2] == [("confirm", B), ("withdraw", A)]
    assert sevenths(store) == {B: 7, C: 0}


@pytest.mark.parametrize("asks", [True, False])
def test_nothing_is_withdrawn_while_the_other_cannot_be_confirmed(
    one: FleetHost, store: StoreInMemory, asks: bool
) -> None:
    one.allocate(A)
    one.allocate(B)
    one.release(A)
    view = one.book
    assert isinstance(view, StoreView)
    view.failures = ["before"]
    if asks:
        one.allocate(C)
    else:
        one.sync()
    assert sevenths(store)[A] == 7
    one.sync()
    one.settle()
    assert sevenths(store) == {B: 7}


def test_a_confirmation_that_is_on_its_way_may_be_older_than_the_books(
    one: FleetHost, store: StoreInMemory
) -> None:
    one.allocate(A)
    one.begin("Allocate", container=B)
    one.step_job()
    one.service.serve_reserved()
    one.show_changes()
    # It is booked beside the other, and says so in the store only after that one has left.
    one.begin("Release", container=A)
    one.sync()
    assert sevenths(store) == {A: 7, B: 0}
    one.serve_jobs()
    one.sync()
    assert sevenths(store) == {B: 7}


def test_what_is_not_reported_yet_keeps_what_would_be_withdrawn(
    one: FleetHost, store: StoreInMemory
) -> None:
    one.allocate(A)
    one.life.book("0", name=B, user="alice")
    one.sweep()
    one.release(A)
    one.sync()
    assert one.kinds() == {("stale-reservation", "waiting"), ("unreported-booking", "waiting")}
    one.allocate(C)
    assert sevenths(store) == {A: 7, C: 0}
    # The name that is still taken is not taken away from it, either.
    assert "not all that alice has on this host is reported yet" in refusal(one.allocate(A))
    one.life.host.pass_time(60)
    one.sync()
    assert sevenths(store) == {B: 7, C: 0}


_steps = st.tuples(
    st.sampled_from(
        [
            "allocate",
            "begin",
            "release",
            "release",
            "job",
            "serve",
            "sync",
            "sync",
            "settle",
            "lose",
        ]
    ),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([A, B, C]),
    st.sampled_from(["before", "after"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(_steps, min_size=6, max_size=25))
def test_in_whatever_order_it_happens_nobody_gets_more_than_the_quota(
    steps: list[tuple[str, int, str, str]],
) -> None:
    store = StoreInMemory()
    hosts = [make_host(store, "gpu01", slots=1), make_host(store, "gpu02", slots=2)]
    for name in (A, B):
        hosts[0].allocate(name)
    for what, number, name, how in steps:
        host = hosts[number]
        view = host.book
        assert isinstance(view, StoreView)
        if what == "allocate":
            host.allocate(name)
        elif what in ("begin", "release"):
            host.begin("Allocate" if what == "begin" else "Release", container=name)
        elif what == "job":
            host.step_job()
        elif what == "serve":
            host.service.serve_reserved()
            host.show_changes()
        elif what == "lose":
            view.failures.append(how)
        elif what == "sync":
            host.sync()
        else:
            host.settle()
        # Each slot once, however many containers share it.
        held = {(host.name, taken) for host in hosts for _, taken in host.booked}
        assert len(held) <= QUOTA
        # Or another host would give away what the store does not count.
        assert sum(sevenths(store).values()) >= 7 * len(held)
    for _ in range(2):
        for host in hosts:
            view = host.book
            assert isinstance(view, StoreView)
            view.failures = []
            host.serve_jobs()
            host.settle()
    assert set(sevenths(store)) == {name for host in hosts for name, _ in host.booked}
    assert all(host.kinds() == set() for host in hosts)
