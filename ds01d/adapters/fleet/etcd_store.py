"""Reads and transactions in etcd that hold for this host only: of the store that it expects.

A store that was restored from a backup has forgotten reservations; two addresses may lead to two
stores; and a host that was cloned, forgotten or restored is no longer who it was. Each of these is
noticed here, before anything is made of an answer. What keys mean is not its concern.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ds01d.adapters.fleet.etcd_client import EtcdClient
from ds01d.adapters.fleet.etcd_errors import ReplyTooLarge
from ds01d.adapters.fleet.etcd_messages import (
    RangeReply,
    ReplyHeader,
    TxnReply,
    is_unchanged,
    range_of,
    read_key,
    txn,
)
from ds01d.errors import StoreFailed, TooMuchStored

PAGE: Final = 10_000
"""4 MB of entries. For each page etcd counts all keys that follow, so many pages cost it much."""
# Ten times the entries that were measured (decision 308): memory is bounded, by any answer.
MAX_KEYS: Final = 1_000_000
MAX_BYTES: Final = 128 << 20
"""Of all keys and values of a scan: ten times a fleet of 100,000 entries."""
SCAN_S: Final = 120.0


class IdentityChanged(StoreFailed):
    """Somebody else wrote or deleted this host's identity. `value`: what is there now."""

    def __init__(self, value: bytes | None) -> None:
        super().__init__("the identity of this host in the store is no longer its own")
        self.value = value


class EtcdStore:
    """Any thread may call. Every method raises StoreFailed."""

    def __init__(self, client: EtcdClient) -> None:
        self.client = client
        self._guard = threading.Lock()
        self._cluster = ""
        self._revision = 0
        # One tuple, replaced as a whole: other threads read it without the lock.
        self._identity: tuple[bytes, int] | None = None

    def expect(self, cluster: str, revision: int) -> None:
        """Refuse answers of another cluster, and of a revision before this one."""
        with self._guard:
            self._cluster, self._revision = cluster, revision

    def guard_identity(self, key: bytes, revision: int) -> None:
        """Make no change of an entry any more unless the key has this very revision."""
        self._identity = key, revision

    def scan(
        self,
        key: bytes,
        end: bytes,
        *,
        is_checked: bool = True,
        keys_only: bool = False,
        revision: int = 0,
        changed_since: int = 0,
        within_s: float = SCAN_S,
    ) -> Iterator[RangeReply]:
        """All keys from `key` up to `end`, page by page, as of `revision` (0: of the first page).

        TooMuchStored where the pages take longer than `within_s`, whatever each of them takes.
        `count` of the first page is of all keys; `changed_since`: as `range_of` has it.
        """
        limit, count, size, cluster = PAGE, 0, 0, -1
        until = time.monotonic() + within_s
        while True:
            floor = self._revision
            request = range_of(
                key,
                end,
                limit=limit,
                revision=revision,
                changed_since=changed_since,
                keys_only=keys_only,
            )
            try:
                reply = self.client.call("/kv/range", request, RangeReply)
            except ReplyTooLarge:
                # Somebody has written huge values: they come one by one if need be.
                if limit == 1:
                    raise
                # By eight: each try throws away up to 8 MiB, and after five the limit is down from
                # 10,000 to 1.
                limit = max(1, limit // 8)
                continue
            # The pages that follow are of the same revision, whatever is written meanwhile.
            if cluster < 0:
                if is_checked:
                    self._check_header(reply.header, floor)
                cluster, revision = reply.header.cluster_id, revision or reply.header.revision
            elif reply.header.cluster_id != cluster:
                raise StoreFailed("the addresses in fleet.etcd lead to more than one etcd")
            yield reply
            count += len(reply.kvs)
            size += sum(len(kv.key) + len(kv.value) for kv in reply.kvs)
            if not reply.more:
                return
            if size > MAX_BYTES or time.monotonic() > until:
                raise TooMuchStored(f"too much in etcd: {count} keys, {size} bytes, and no end")
            # A server that goes round in circles, or has more than a fleet could.
            if not reply.kvs or reply.kvs[-1].key < key or count > MAX_KEYS:
                raise StoreFailed(f"invalid answer of etcd: no end after {count} keys")
            key = reply.kvs[-1].key + b"\0"

    def commit(
        self,
        compares: Sequence[dict[str, Any]],
        then: Sequence[dict[str, Any]],
        otherwise: Sequence[dict[str, Any]] = (),
    ) -> TxnReply:
        """A transaction on entries, which also needs the identity of this host to be unchanged.

        Raises IdentityChanged, and StoreFailed: then it may have been made.
        """
        identity, floor = self._identity, self._revision
        if identity is not None:
            compares = [*compares, is_unchanged(*identity)]
            # Last, so that its place is known whatever the caller reads.
            otherwise = [*otherwise, read_key(identity[0])]
        reply = self.client.call("/kv/txn", txn(compares, then, otherwise), TxnReply)
        self._check_header(reply.header, floor)
        if identity is not None and not reply.succeeded:
            # Which compare failed etcd does not say.
            current = reply.find_key(len(otherwise) - 1)
            if current is None or current.mod_revision != identity[1]:
                raise IdentityChanged(None if current is None else current.value)
        return reply

    def commit_unguarded(
        self, compares: Sequence[dict[str, Any]], then: Sequence[dict[str, Any]]
    ) -> TxnReply:
        """A transaction on what is not an entry of this host, in whatever store answers."""
        return self.client.call("/kv/txn", txn(compares, then), TxnReply)

    def _check_header(self, header: ReplyHeader, floor: int) -> None:
        """Raises StoreFailed unless the answer comes from the store that is expected.

        `floor`: what was known when the call began; another thread may know more by now.
        """
        with self._guard:
            if not self._cluster:
                return
            if header.cluster != self._cluster:
                raise StoreFailed(
                    f"another etcd answers: cluster {header.cluster}, expected {self._cluster}"
                )
            if header.revision < floor:
                raise StoreFailed(
                    f"etcd went back from revision {floor} to {header.revision}: it was restored"
                    " from a backup"
                )
            self._revision = max(self._revision, header.revision)
