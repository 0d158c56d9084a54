"""The fleet's store in etcd, as the `FleetBook` of one host.

It joins what `etcd_entries`, `etcd_nodes` and `etcd_contents` do, and makes a value of every
failure. Any thread may call; a long read delays no reservation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from ds01d.adapters.fleet.book_format import parse_entry, parse_identity
from ds01d.adapters.fleet.book_keys import USERS, show_key, split_key
from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_contents import ContentsReader, read_user
from ds01d.adapters.fleet.etcd_entries import EtcdEntries
from ds01d.adapters.fleet.etcd_messages import WatchEvent, prefix_end
from ds01d.adapters.fleet.etcd_nodes import EtcdNodes
from ds01d.adapters.fleet.etcd_store import EtcdStore, IdentityChanged
from ds01d.errors import Malformed, StoreFailed
from ds01d.model.fleet_books import (
    Absent,
    Changed,
    Conflict,
    ConflictKind,
    EntryChange,
    FleetContents,
    FleetEntry,
    NodeId,
    NodeIdentity,
    Revision,
    UserEntries,
)
from ds01d.model.primitives import Source, Unknown, UserName

T = TypeVar("T")


class EtcdBooks:
    """`FleetBook` for host `node`, or for the one whose identity it takes."""

    def __init__(self, client: EtcdClient, node: NodeId) -> None:
        self._client, self._node = client, node
        self._store = EtcdStore(client)
        self._entries = EtcdEntries(self._store)
        self._nodes = EtcdNodes(self._store, node)
        self._contents = ContentsReader(self._store)

    def expect_store(self, cluster: str, revision: Revision) -> None:
        self._store.expect(cluster, revision)

    def read_user(self, user: UserName) -> UserEntries | Unknown:
        return _catch_failure(lambda: read_user(self._store, user))

    def reserve_entry(self, entry: FleetEntry, fence: Revision) -> Changed | Conflict | Unknown:
        return self._change_entry(entry, lambda: self._entries.reserve(entry, fence))

    def report_entry(self, entry: FleetEntry) -> Changed | Conflict | Unknown:
        return self._change_entry(entry, lambda: self._entries.report(entry))

    def confirm_entry(self, entry: FleetEntry) -> Changed | Absent | Conflict | Unknown:
        return self._change_entry(entry, lambda: self._entries.confirm(entry))

    def withdraw_entry(
        self, entry: FleetEntry, *, keeps_names: bool = False
    ) -> Changed | Absent | Conflict | Unknown:
        return self._change_entry(
            entry, lambda: self._entries.withdraw(entry, keeps_names=keeps_names)
        )

    def free_name(self, entry: FleetEntry) -> Changed | Absent | Conflict | Unknown:
        return self._change_entry(entry, lambda: self._entries.free_name(entry))

    def read_contents(self) -> FleetContents | Unknown:
        return _catch_failure(self._contents.read)

    def take_identity(
        self, identity: NodeIdentity, expected: int | None, *, rejoins: bool = False
    ) -> Changed | Conflict | Unknown:
        answer = _catch_failure(
            lambda: self._nodes.take_identity(identity, expected, rejoins=rejoins)
        )
        # A copy of another host becomes a node of its own.
        if isinstance(answer, Changed):
            self._node = identity.node
        return answer

    def keep_alive(self, seconds: int) -> Unknown | None:
        return _catch_failure(lambda: self._nodes.keep_alive(seconds))

    def publish_summary(self, summary: dict[str, object]) -> Unknown | None:
        return _catch_failure(lambda: self._nodes.publish_summary(summary))

    def forget_node(self, node: NodeId) -> Changed | Unknown:
        return _catch_failure(lambda: self._nodes.forget(node))

    def watch_entries(self, after: Revision) -> Iterator[EntryChange | Unknown]:
        try:
            # etcd's start revision is part of what it sends.
            for result in self._client.watch(USERS, prefix_end(USERS), after + 1):
                yield from filter(None, map(_read_event, result.events))
        except (StoreFailed, Malformed) as error:
            yield Unknown(source=Source.FLEET, reason=str(error))

    def close(self) -> None:
        """Break every connection: whatever waits for one gives `Unknown` at once."""
        self._client.close()

    def _change_entry(self, entry: FleetEntry, make: Callable[[], T]) -> T | Conflict | Unknown:
        self._check_own(entry.node)
        try:
            return _catch_failure(make)
        except IdentityChanged as error:
            return Conflict(
                kind=ConflictKind.INCARNATION, identity=_parse_identity(self._node, error.value)
            )

    def _check_own(self, node: NodeId) -> None:
        if node != self._node:
            # A mistake of ours and no failure of the store, so no value stands for it.
            raise ValueError(f"node {node} is not this one, {self._node}")


def _catch_failure(call: Callable[[], T]) -> T | Unknown:
    try:
        return call()
    # A StoreFailed as well, but of a host that is fenced: it must not look like a store that is
    # away.
    except IdentityChanged:
        raise
    except (StoreFailed, Malformed) as error:
        return Unknown(source=Source.FLEET, reason=str(error))


def _parse_identity(node: NodeId, value: bytes | None) -> NodeIdentity | None:
    try:
        return None if value is None else parse_identity(node, value)
    except Malformed:
        return None


def _read_event(event: WatchEvent) -> EntryChange | None:
    """What happened to an entry; None for other keys, such as fences."""
    key, shown = event.kv, show_key(event.kv.key)
    revision = Revision(key.mod_revision)
    try:
        match split_key(key.key):
            case "users", user, "held", node, booking:
                is_deleted = event.type == "DELETE"
                entry = None if is_deleted else parse_entry(user, node, booking, key.value)
                return EntryChange(revision=revision, key=shown, entry=entry)
            case _:
                return None
    except Malformed as error:
        return EntryChange(revision=revision, key=shown, entry=None, malformed=str(error))
