"""A real etcd for tests, and hosts of a fleet that use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from ds01d.adapters.fleet.etcd_books import EtcdBooks
from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_settings import EtcdSettings, parse_endpoint
from ds01d.model.fleet_books import (
    Changed,
    EntryPhase,
    FleetContents,
    FleetEntry,
    NodeId,
    NodeIdentity,
    Revision,
    UserEntries,
)
from ds01d.model.primitives import BookingId, ContainerName, SlotId, UserName, Wall
from simulation.etcd import EtcdCluster, EtcdUnavailable, etcd_cluster

QUICK = ("--heartbeat-interval=50", "--election-timeout=500")
"""Elections within a second; a busy machine may have one too many, which is no harm."""


@contextmanager
def started_etcd(count: int = 1, **options: Any) -> Iterator[EtcdCluster]:
    """An etcd, or the test is skipped where none can be had."""
    try:
        with etcd_cluster(count, settings=QUICK, **options) as cluster:
            yield cluster
    except EtcdUnavailable as error:
        pytest.skip(str(error))


def etcd_settings(endpoints: Sequence[str], **changes: Any) -> EtcdSettings:
    """Patient: a busy machine is no failure."""
    settings = EtcdSettings(endpoints=tuple(map(parse_endpoint, endpoints)), timeout_s=20.0)
    return replace(settings, **changes)


def books_of(cluster: EtcdCluster, node: str = "n1", **changes: Any) -> EtcdBooks:
    """The store as a host has it."""
    return EtcdBooks(EtcdClient(etcd_settings(cluster.endpoints, **changes)), NodeId(node))


def empty_store(cluster: EtcdCluster) -> None:
    """Delete every key."""
    cluster.run_etcdctl("del", "", "--from-key")


def make_entry(booking: str = "b1", **changes: Any) -> FleetEntry:
    """Alice's, on node n1."""
    entry = FleetEntry(
        user=UserName("alice"),
        node=NodeId("n1"),
        booking=BookingId(booking),
        container=ContainerName(f"train-{booking}"),
        phase=EntryPhase.RESERVED,
        count=1,
        sevenths=7,
        since=Wall(1_700_000_000.0),
    )
    return replace(entry, **changes)


def confirmed(entry: FleetEntry, *slots: str) -> FleetEntry:
    return replace(entry, phase=EntryPhase.HELD, slots=tuple(map(SlotId, slots)))


def make_identity(node: str = "n1", incarnation: int = 1, **changes: Any) -> NodeIdentity:
    identity = NodeIdentity(
        node=NodeId(node),
        host=f"host-{node}",
        incarnation=incarnation,
        boot_id="boot",
        engine_id="engine",
        version="1.0",
        protocols=(1,),
        nonce=f"{node}-{incarnation}",
    )
    return replace(identity, **changes)


def read_user(books: EtcdBooks, user: str = "alice") -> UserEntries:
    answer = books.read_user(UserName(user))
    assert isinstance(answer, UserEntries), answer
    return answer


def read_contents(books: EtcdBooks) -> FleetContents:
    answer = books.read_contents()
    assert isinstance(answer, FleetContents), answer
    return answer


def reserve(books: EtcdBooks, entry: FleetEntry) -> Revision:
    """As a host does it, where nobody else interferes."""
    answer = books.reserve_entry(entry, read_user(books, entry.user).fence)
    assert isinstance(answer, Changed), answer
    return answer.revision
