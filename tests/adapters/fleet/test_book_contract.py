"""The store in memory, on which deciding is tested, does what a real etcd does, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.adapters.fleet.book_keys import ROOT
from ds01d.adapters.fleet.etcd_books import EtcdBooks
from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_messages import RangeReply, prefix_end, range_of
from ds01d.model.fleet_books import (
    Changed,
    Conflict,
    EntryPhase,
    FleetContents,
    FleetEntry,
    NodeId,
    Revision,
    UserEntries,
)
from ds01d.model.primitives import BookingId, ContainerName, UserName
from ds01d.reconcile.fleet_ports import FleetBook
from simulation.etcd import EtcdCluster
from tests.support.fleet_memory_store import StoreInMemory, StoreView
from tests.support.fleet_store import etcd_settings, make_entry, make_identity, started_etcd
from tests.support.proofs import PROOFS

USERS = (UserName("alice"), UserName("bob"))
NODES = {"one": NodeId("n1"), "copy of one": NodeId("n1"), "two": NodeId("n2")}


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with started_etcd() as made:
        yield made


@dataclass
class Pair:
    """A host, as it uses the real store and the one in memory, and what it read of each last."""

    real: FleetBook
    memory: FleetBook
    fences: dict[UserName, tuple[Revision, Revision]]


@st.composite
def entries(draw: st.DrawFn, node: NodeId) -> FleetEntry:
    count = draw(st.integers(1, 2))
    return make_entry(
        booking=f"{node}-{draw(st.integers(1, 2))}",
        node=node,
        user=draw(st.sampled_from(USERS)),
        container=ContainerName(draw(st.sampled_from("abc"))),
        phase=draw(st.sampled_from(EntryPhase)),
        count=count,
        sevenths=7 * count,
    )


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, str, Any]:
    host = draw(st.sampled_from(sorted(NODES)))
    what = draw(
        st.sampled_from(
            (
                *("read", "read", "reserve", "reserve", "report", "confirm", "withdraw"),
                *("withdraw key", "free name", "identity", "forget"),
            )
        )
    )
    if what == "read":
        return host, what, draw(st.sampled_from(USERS))
    if what == "identity":
        expected = draw(st.none() | st.integers(1, 2))
        nonce = draw(st.sampled_from("xy"))
        return host, what, (draw(st.integers(1, 3)), expected, nonce, draw(st.booleans()))
    if what == "forget":
        return host, what, draw(st.sampled_from(sorted(set(NODES.values()))))
    return host, what, draw(entries(NODES[host]))


def take_step(pair: Pair, what: str, argument: Any, node: NodeId) -> tuple[object, object]:
    """What both stores answer."""
    match what:
        case "read":
            answers = pair.real.read_user(argument), pair.memory.read_user(argument)
            assert isinstance(answers[0], UserEntries)
            assert isinstance(answers[1], UserEntries)
            pair.fences[argument] = answers[0].fence, answers[1].fence
            return (by_booking(answers[0].entries), by_booking(answers[1].entries))
        case "reserve":
            fences = pair.fences.get(argument.user, (Revision(0), Revision(0)))
            return (
                pair.real.reserve_entry(argument, fences[0]),
                pair.memory.reserve_entry(argument, fences[1]),
            )
        case "report":
            return pair.real.report_entry(argument), pair.memory.report_entry(argument)
        case "confirm":
            return pair.real.confirm_entry(argument), pair.memory.confirm_entry(argument)
        case "withdraw":
            return pair.real.withdraw_entry(argument), pair.memory.withdraw_entry(argument)
        case "withdraw key":
            return (
                pair.real.withdraw_entry(argument, keeps_names=True),
                pair.memory.withdraw_entry(argument, keeps_names=True),
            )
        case "free name":
            return pair.real.free_name(argument), pair.memory.free_name(argument)
        case "identity":
            incarnation, expected, nonce, rejoins = argument
            identity = replace(make_identity(node, incarnation), nonce=nonce)
            return (
                pair.real.take_identity(identity, expected, rejoins=rejoins),
                pair.memory.take_identity(identity, expected, rejoins=rejoins),
            )
        case _:
            return pair.real.forget_node(argument), pair.memory.forget_node(argument)


def simplify(answer: object) -> object:
    """Without the revision, which each store counts by itself."""
    return Changed if isinstance(answer, Changed) else answer


def by_booking(entries: tuple[FleetEntry, ...]) -> dict[BookingId, list[FleetEntry]]:
    found: dict[BookingId, list[FleetEntry]] = {}
    for entry in sorted(entries, key=repr):
        found.setdefault(entry.booking, []).append(entry)
    return found


def describe(contents: object) -> tuple[object, ...]:
    assert isinstance(contents, FleetContents)
    return (
        by_booking(contents.entries),
        contents.names,
        contents.identities,
        set(contents.forgotten),
        contents.malformed,
    )


@settings(max_examples=200 if PROOFS else 25)
@given(st.lists(steps(), min_size=4, max_size=14))
def check_history(cluster: EtcdCluster, history: list[tuple[str, str, Any]]) -> None:
    client = EtcdClient(etcd_settings(cluster.endpoints))
    client.call("/kv/deleterange", range_of(ROOT, prefix_end(ROOT)), RangeReply)
    store = StoreInMemory()
    pairs = {
        host: Pair(EtcdBooks(client, node), StoreView(store), {}) for host, node in NODES.items()
    }
    observer = EtcdBooks(client, NodeId("observer"))
    fences = {user: (Revision(0), Revision(0)) for user in USERS}
    for host, what, argument in history:
        real, memory = take_step(pairs[host], what, argument, NODES[host])
        assert simplify(real) == simplify(memory), (host, what, argument)
        assert describe(observer.read_contents()) == describe(StoreView(store).read_contents())
        for user, before in fences.items():
            now = observer.read_user(user), StoreView(store).read_user(user)
            assert isinstance(now[0], UserEntries)
            assert isinstance(now[1], UserEntries)
            moved = now[0].fence != before[0], now[1].fence != before[1]
            assert moved[0] == moved[1], (host, what, argument, user)
            fences[user] = now[0].fence, now[1].fence


@pytest.mark.proof
def test_both_stores_answer_the_same_to_the_same_history(cluster: EtcdCluster) -> None:
    check_history(cluster)


def test_a_conflict_names_the_holder_in_both(cluster: EtcdCluster) -> None:
    client = EtcdClient(etcd_settings(cluster.endpoints))
    client.call("/kv/deleterange", range_of(ROOT, prefix_end(ROOT)), RangeReply)
    for book in (EtcdBooks(client, NodeId("n1")), StoreView(StoreInMemory())):
        first, second = make_entry("b1"), make_entry("b2")
        book.report_entry(first)
        answer = book.report_entry(replace(second, container=first.container))
        assert isinstance(answer, Conflict)
        assert answer.holder is not None
        assert answer.holder.booking == first.booking
