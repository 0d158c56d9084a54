"""What a user is told of a quota that all hosts share, and that bookings agree with it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.fleet_books import sum_use
from ds01d.decide.fleet_elsewhere import describe_use_elsewhere, sum_use_elsewhere
from ds01d.model.fleet_books import EntryPhase, FleetContents, FleetEntry, NodeId, Revision
from ds01d.model.fleet_drift import Membership, MembershipState
from ds01d.model.limits import GpuQuota
from ds01d.model.primitives import BookingId, ContainerName, UserName, Wall
from ds01d.model.quota import OtherHostsUse, QuotaUnit
from tests.support.fleet_hosts import FleetHost, limits, refusal
from tests.support.fleet_memory_store import StoreInMemory, StoreView

A, B, C = "a._.1001", "b._.1001", "c._.1001"
MEMBER = Membership(state=MembershipState.MEMBER, since=Wall(0.0))
ALICE = UserName("alice")


def make_host(store: StoreInMemory, name: str) -> FleetHost:
    host = FleetHost(name, StoreView(store))
    host.sweep()
    host.sync()
    return host


@pytest.fixture
def store() -> StoreInMemory:
    return StoreInMemory()


@pytest.fixture
def one(store: StoreInMemory) -> FleetHost:
    return make_host(store, "gpu01")


@pytest.fixture
def two(store: StoreInMemory) -> FleetHost:
    return make_host(store, "gpu02")


def quota(host: FleetHost, by: str = "alice") -> dict[str, Any]:
    found: dict[str, Any] = host.call("Quota", by=by)["parameters"]["quota"]
    return found


def test_what_is_left_is_what_the_store_would_give(one: FleetHost, two: FleetHost) -> None:
    assert quota(one)["left"] == 2.0
    two.allocate(A)
    one.sync()
    calls = list(one.book.calls)  # type: ignore[attr-defined]
    shown = quota(one)
    assert (shown["held"] + shown["reserved"], shown["left"]) == (0.0, 1.0)
    there = shown["other_hosts"]
    assert (there["held"], there["hosts"], there["problem"]) == (1.0, ["gpu02"], "")
    report = one.worker.report
    assert report is not None
    assert there["at"] == {"at": report.at}
    assert quota(one, by="bob")["other_hosts"]["held"] == 0.0
    # Nobody who looks makes a call to the store.
    assert one.book.calls == calls  # type: ignore[attr-defined]
    one.allocate(B)
    assert quota(one)["left"] == 0.0
    assert refusal(one.allocate(C)).startswith("USER_AT_LIMIT (2/2 on gpu01, gpu02)")


def test_own_entries_are_not_counted_twice(one: FleetHost, two: FleetHost) -> None:
    two.allocate(A)
    two.sync()
    shown = quota(two)
    assert (shown["left"], shown["other_hosts"]["held"]) == (1.0, 0.0)


def test_before_the_store_was_read_it_is_unknown(store: StoreInMemory) -> None:
    host = FleetHost("gpu01", StoreView(store))
    there = quota(host)["other_hosts"]
    assert there["held"] is None
    assert there["problem"] == "this host does not take part in the fleet yet"
    host.sweep()
    host.book.is_away = True  # type: ignore[attr-defined]
    host.sync()
    there = quota(host)["other_hosts"]
    assert (there["held"], there["at"]) == (None, None)
    assert there["problem"].startswith("cannot reach etcd")


def test_while_it_is_away_the_last_word_is_shown_with_its_age(
    one: FleetHost, two: FleetHost
) -> None:
    two.allocate(A)
    one.sync()
    before = quota(one)["other_hosts"]
    one.book.is_away = True  # type: ignore[attr-defined]
    one.life.host.pass_time(600)
    one.sync()
    there = quota(one)["other_hosts"]
    assert (there["held"], there["at"]) == (1.0, before["at"])
    assert there["problem"].startswith("cannot reach etcd")


def test_what_nobody_can_read_is_unknown_for_whom_it_is_about(
    one: FleetHost, store: StoreInMemory
) -> None:
    key = "/ds01/v1/users/alice/held/n/b"
    store.malformed[key] = "no JSON"
    one.sync()
    there = quota(one)["other_hosts"]
    assert (there["held"], there["problem"]) == (None, f"an entry in the store is malformed: {key}")
    assert quota(one, by="bob")["other_hosts"]["held"] == 0.0


def test_a_restored_store_says_nothing_until_all_have_reported(
    one: FleetHost, two: FleetHost, store: StoreInMemory
) -> None:
    backup = store.copy()
    two.allocate(A)
    one.sync()
    store.restore(backup)
    one.sync()
    assert one.worker.membership.state is MembershipState.RESTORED
    assert quota(one)["other_hosts"]["held"] is None


def test_gpu_equivalents_are_those_of_the_other_hosts(one: FleetHost, two: FleetHost) -> None:
    shared = limits(None, GpuQuota(gpus=Fraction(2)))
    one.life.host.limits = two.life.host.limits = shared
    two.sweep()
    two.allocate(A)
    one.sync()
    shown = quota(one)
    assert (shown["unit"], shown["other_hosts"]["held"], shown["left"]) == ("gpus", 1.0, 1.0)


USERS = st.sampled_from(["alice", "bob", "a/b", "ü"])
NODES = st.sampled_from(["n1", "n2", "n3"])
ENTRIES = st.lists(
    st.builds(
        FleetEntry,
        user=USERS.map(UserName),
        node=NODES.map(NodeId),
        booking=st.uuids().map(str).map(BookingId),
        container=st.just(ContainerName("x")),
        phase=st.sampled_from(EntryPhase),
        count=st.integers(0, 8),
        sevenths=st.integers(0, 56),
        since=st.just(Wall(0.0)),
    ),
    max_size=12,
)


@given(entries=ENTRIES, node=NODES.map(NodeId))
def test_all_that_is_not_here_is_elsewhere(entries: list[FleetEntry], node: NodeId) -> None:
    contents = FleetContents(
        cluster="c", revision=Revision(1), identities={}, alive=frozenset(),
        entries=tuple(entries), names={}, summaries={},
    )  # fmt: skip
    seen = sum_use_elsewhere(contents, node)
    here = sum_use(entry for entry in entries if entry.node == node)
    for user, (slots, sevenths) in sum_use(entries).items():
        own_slots, own_sevenths = here.get(user, (0, 0))
        by_slots = describe_use_elsewhere(user, QuotaUnit.SLOTS, seen, Wall(1.0), MEMBER)
        by_gpus = describe_use_elsewhere(user, QuotaUnit.GPUS, seen, Wall(1.0), MEMBER)
        assert by_slots.used == slots - own_slots
        assert by_gpus.used == Fraction(sevenths - own_sevenths, 7)
        assert node not in by_slots.hosts


@pytest.mark.parametrize("state", MembershipState)
def test_whatever_is_not_known_is_not_zero(state: MembershipState) -> None:
    membership = replace(MEMBER, state=state, reason="why")
    use = describe_use_elsewhere(ALICE, QuotaUnit.SLOTS, None, Wall(1.0), membership)
    assert use.used is None
    assert use.problem
    assert use.hosts == ()


def test_a_member_that_has_read_the_store_knows(one: FleetHost) -> None:
    use = one.session.find_use_elsewhere(ALICE, QuotaUnit.SLOTS)
    assert isinstance(use, OtherHostsUse)
    assert (use.used, use.problem) == (Fraction(0), "")
