"""The hosts that take part, in the store: who they are, whether they live, what they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from ds01d.adapters.fleet.book_format import (
    encode_identity,
    encode_object,
    parse_identity,
    parse_name,
)
from ds01d.adapters.fleet.book_keys import (
    NAMES,
    USERS,
    alive_key,
    forgotten_key,
    identity_key,
    split_key,
    summary_key,
)
from ds01d.adapters.fleet.etcd_messages import (
    ABSENT,
    KeepAliveReply,
    KeyValue,
    LeaseReply,
    RangeReply,
    delete_key,
    is_unchanged,
    prefix_end,
    put_key,
    range_of,
)
from ds01d.adapters.fleet.etcd_store import EtcdStore
from ds01d.errors import Malformed, StoreFailed, StoreRefused
from ds01d.model.fleet_books import (
    Changed,
    Conflict,
    ConflictKind,
    NodeId,
    NodeIdentity,
    Revision,
)

_ATTEMPTS: Final = 5
_CHUNK: Final = 100  # keys of a transaction: etcd takes 128 operations where nothing else is set


class EtcdNodes:
    """For one host. Every method raises StoreFailed; then the change may have been made."""

    def __init__(self, store: EtcdStore, node: NodeId) -> None:
        self._store, self._node = store, node
        self._lease, self._lease_s = 0, 0

    def take_identity(
        self, identity: NodeIdentity, expected: int | None, *, rejoins: bool = False
    ) -> Changed | Conflict:
        """See `FleetBook.take_identity`."""
        key, forgotten = identity_key(identity.node), forgotten_key(identity.node)
        for _ in range(_ATTEMPTS):
            current = self._find_key(key)
            stored = None if current is None else _parse_identity(identity.node, current)
            # The answer to an earlier call may have been lost.
            is_own = stored is not None and _is_same(stored, identity)
            incarnation = None if stored is None else stored.incarnation
            if not is_own and incarnation != expected:
                return Conflict(kind=ConflictKind.INCARNATION, identity=stored)
            value = encode_identity(identity, {} if stored is None else stored.extra)
            if current is not None and is_own and current.value == value:
                return self._adopt_identity(identity.node, current.mod_revision)
            compares = [is_unchanged(key, ABSENT if current is None else current.mod_revision)]
            # Beside an identity it is of a host that rejoined by an older ds01d.
            if stored is None and not rejoins:
                if self._find_key(forgotten) is not None:
                    return Conflict(kind=ConflictKind.INCARNATION)
                compares.append(is_unchanged(forgotten, ABSENT))
            changes = [put_key(key, value), delete_key(forgotten)]
            reply = self._store.commit_unguarded(compares, changes)
            if reply.succeeded:
                return self._adopt_identity(identity.node, reply.header.revision)
        raise StoreFailed(f"the identity of {identity.host} was changed at each attempt")

    def _adopt_identity(self, node: NodeId, revision: int) -> Changed:
        """From now on this host is `node`, as long as that revision is the identity's."""
        # The lease is tied to the key of the former ID: both end, as nothing renews them.
        if node != self._node:
            self._node, self._lease = node, 0
        self._store.guard_identity(identity_key(node), revision)
        return Changed(revision=Revision(revision))

    def keep_alive(self, seconds: int) -> None:
        """See `FleetBook.keep_alive`."""
        key = alive_key(self._node)
        # A lease shows that a host lives, and proves nothing about its bookings (decision 305):
        # nothing is withdrawn because one ended.
        if self._lease and self._lease_s == seconds and self._renew_lease():
            # The key may be gone while the lease is not: deleted, or of a store that was restored.
            current = self._find_key(key)
            if current is not None and current.lease == self._lease:
                return
        else:
            reply = self._store.client.call("/lease/grant", {"TTL": str(seconds)}, LeaseReply)
            self._lease, self._lease_s = reply.lease_id, seconds
        try:
            put = put_key(key, encode_object({}), self._lease)
            self._store.commit_unguarded([], [put])
        except StoreRefused:
            self._lease = 0  # It is gone already.
            raise

    def publish_summary(self, summary: Mapping[str, object]) -> None:
        """See `FleetBook.publish_summary`."""
        put = put_key(summary_key(self._node), encode_object(summary))
        self._store.commit_unguarded([], [put])

    def forget(self, node: NodeId) -> Changed:
        """See `FleetBook.forget_node`."""
        # Each of its changes compares its identity: from here on it makes none.
        of_node = [identity_key(node), alive_key(node), summary_key(node)]
        changes = [put_key(forgotten_key(node), encode_object({})), *map(delete_key, of_node)]
        revision = self._store.commit_unguarded([], changes).header.revision
        for _ in range(_ATTEMPTS):
            keys = [*self._find_entries(node), *self._find_names(node)]
            if not keys:
                return Changed(revision=Revision(revision))
            for first in range(0, len(keys), _CHUNK):
                part = keys[first : first + _CHUNK]
                # Not what was changed since: the name may be another host's by now.
                compares = [is_unchanged(key.key, key.mod_revision) for key in part]
                changes = [delete_key(key.key) for key in part]
                revision = self._store.commit_unguarded(compares, changes).header.revision
        raise StoreFailed(f"entries of node {node} appear again: stop ds01d there first")

    def _find_entries(self, node: NodeId) -> Iterator[KeyValue]:
        for key, parts in self._scan_keys(USERS, keys_only=True):
            if len(parts) == 5 and parts[2:4] == ("held", node):
                yield key

    def _find_names(self, node: NodeId) -> Iterator[KeyValue]:
        for key, parts in self._scan_keys(NAMES, keys_only=False):
            try:
                name = parse_name(parts[-1], key.value)
            except Malformed:
                continue
            if name.node == node:
                yield key

    def _scan_keys(
        self, prefix: bytes, *, keys_only: bool
    ) -> Iterator[tuple[KeyValue, tuple[str, ...]]]:
        end = prefix_end(prefix)
        # In whatever store answers: after a restore, too, an admin may forget a host.
        for page in self._store.scan(prefix, end, is_checked=False, keys_only=keys_only):
            for key in page.kvs:
                # Reported with the contents; it cannot be a node's.
                with suppress(Malformed):
                    yield key, split_key(key.key)

    def _renew_lease(self) -> bool:
        request: dict[str, Any] = {"ID": str(self._lease)}
        # It ends after the first answer, though it is a stream: so does the request.
        reply = self._store.client.call("/lease/keepalive", request, KeepAliveReply)
        return reply.result.ttl_s > 0

    def _find_key(self, key: bytes) -> KeyValue | None:
        reply = self._store.client.call("/kv/range", range_of(key), RangeReply)
        return reply.kvs[0] if reply.kvs else None


def _parse_identity(node: NodeId, key: KeyValue) -> NodeIdentity | None:
    """None where somebody has spoilt it: it counts as absent, and is reported with the contents."""
    try:
        return parse_identity(node, key.value)
    except Malformed:
        return None


def _is_same(stored: NodeIdentity, identity: NodeIdentity) -> bool:
    return (
        bool(identity.nonce)
        and stored.nonce == identity.nonce
        and stored.incarnation == identity.incarnation
    )
