"""ds01d's own client of the store under the reference host.

What is tried then is how keys are read and changed over a real network, without a whole ds01d.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from ds01d.adapters.fleet import circuit_breaker
from ds01d.adapters.fleet.etcd_books import EtcdBooks
from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_settings import EtcdSettings, parse_endpoint
from ds01d.model.fleet_books import (
    Conflict,
    ConflictKind,
    EntryPhase,
    FleetEntry,
    NodeId,
    NodeIdentity,
    Revision,
)
from ds01d.model.primitives import BookingId, ContainerName, Unknown, UserName, Wall
from tests.verification.fleet.keys import HeldKey
from tests.verification.fleet.reference_store import (
    DEADLINE_S,
    Away,
    Contents,
    Held,
    Json,
    Store,
    UserRows,
)

_Answer = TypeVar("_Answer")
_CERTAIN_S: Final = 6.0
"""So long after its watch broke a host is not sure of the store."""
# Divided by ten, or hosts would spend most of a storm without the store.
circuit_breaker.FIRST_PAUSE_S, circuit_breaker.LONGEST_PAUSE_S = 0.2, 1.0  # type: ignore[misc]


class ClientStore(Store):
    """The same calls, over `EtcdBooks`."""

    def __init__(self, ports: Sequence[int], node: str) -> None:
        super().__init__(ports, node, ())
        endpoints = tuple(parse_endpoint(f"http://127.0.0.1:{port}") for port in ports)
        self._client = EtcdClient(EtcdSettings(endpoints=endpoints, timeout_s=DEADLINE_S))
        self._books = EtcdBooks(self._client, NodeId(node))
        self._cluster, self._taken_in = "", ""
        self._broke_at = time.monotonic()

    @property
    def is_broken(self) -> bool:
        return self._client.breaker.is_open

    def read_user(self, user: str) -> UserRows:
        found = _known(self._books.read_user(UserName(user)))
        if found.malformed:
            raise Away(str(found.malformed))
        return UserRows(
            cluster=self._cluster,
            revision=1 << 60,  # the client itself refuses an older one
            held=tuple(map(_make_held, found.entries)),
            fence=found.fence,
        )

    def reserve(self, key: HeldKey, value: Json, fence: int) -> str:
        answer = _known(self._books.reserve_entry(_make_entry(key, value), Revision(fence)))
        return "" if not isinstance(answer, Conflict) else _name_conflict(answer)

    def report(self, key: HeldKey, value: Json) -> None:
        answer = _known(self._books.report_entry(_make_entry(key, value)))
        if isinstance(answer, Conflict) and answer.kind is not ConflictKind.NAME:
            raise Away("the identity was changed")

    def confirm(self, entry: Held, value: Json) -> None:
        _known(self._books.confirm_entry(_make_entry(entry.key, value)))

    def withdraw(self, key: HeldKey, container: str) -> None:
        value = {"phase": "held", "container": container, "count": 1}
        _known(self._books.withdraw_entry(_make_entry(key, value)))

    def read_contents(self) -> Contents:
        found = _known(self._books.read_contents())
        identities = {
            node: {
                "v": 1,
                "host": one.host,
                "incarnation": one.incarnation,
                "reported": _find_reported(found.summaries.get(node, {})),
            }
            for node, one in found.identities.items()
        }
        return Contents(
            cluster=found.cluster,
            revision=found.revision,
            held=tuple(map(_make_held, found.entries)),
            names={str(name): {"booking": one.booking} for name, one in found.names.items()},
            identities={str(node): value for node, value in identities.items()},
            alive=frozenset(map(str, found.alive)),
        )

    def expect(self, contents: Contents) -> None:
        if contents.cluster != self._cluster:
            self._books.expect_store(contents.cluster, Revision(contents.revision))
            self._cluster = contents.cluster

    def prepare(self, contents: Contents, identity: Json) -> None:
        """Entries are changed only by who has the identity."""
        if self._taken_in == contents.cluster:
            return
        present = contents.identities.get(self.node)
        mine = NodeIdentity(
            node=NodeId(self.node),
            host=identity["host"],
            incarnation=identity["incarnation"],
            boot_id="",
            engine_id="",
            version="0",
            protocols=(1,),
            nonce=str(identity["incarnation"]),
        )
        expected = None if present is None else present["incarnation"]
        if isinstance(_known(self._books.take_identity(mine, expected)), Conflict):
            raise Away("somebody else has this identity")
        self._taken_in = contents.cluster

    def put_identity(self, value: Json) -> None:
        synced = {"cluster": value["reported"], "revision": 1}
        _known(self._books.publish_summary({"synced": synced}))

    def keep_alive(self, lease: str, seconds: int) -> str:
        _known(self._books.keep_alive(seconds))
        return lease

    def watch(self, stopping: threading.Event) -> bool:
        for change in self._books.watch_entries(Revision(0)):
            if stopping.is_set() or isinstance(change, Unknown):
                break
        self._broke_at = time.monotonic()
        return False

    @property
    def is_watching(self) -> bool:
        return time.monotonic() > self._broke_at + _CERTAIN_S

    @is_watching.setter
    def is_watching(self, _: bool) -> None:
        """It is known by when a watch broke."""


def _find_reported(summary: Mapping[str, object]) -> str:
    """The cluster that the host has last reported to."""
    synced = summary.get("synced")
    return str(synced["cluster"]) if isinstance(synced, dict) else ""


def _known(answer: _Answer | Unknown) -> _Answer:
    """Raises `Away` for no answer."""
    if isinstance(answer, Unknown):
        raise Away(answer.reason)
    return answer


def _name_conflict(conflict: Conflict) -> str:
    if conflict.kind is ConflictKind.INCARNATION:
        raise Away("the identity was changed")
    return str(conflict.kind.value)


def _make_entry(key: HeldKey, value: Json) -> FleetEntry:
    return FleetEntry(
        user=UserName(key.user),
        node=NodeId(key.node),
        booking=BookingId(key.booking),
        container=ContainerName(value["container"]),
        phase=EntryPhase(value["phase"]),
        count=value["count"],
        sevenths=7 * value["count"],
        since=Wall(0.0),
    )


def _make_held(entry: FleetEntry) -> Held:
    key = HeldKey(str(entry.user), str(entry.node), str(entry.booking))
    value: Json = {
        "v": 1,
        "phase": entry.phase.value,
        "container": str(entry.container),
        "count": entry.count,
        "slots": [],
        "sevenths": entry.sevenths,
        "since": 0,
    }
    return Held(key=key, value=value, revision=0)
