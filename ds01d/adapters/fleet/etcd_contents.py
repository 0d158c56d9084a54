"""What is in the store, as values: of one user, and of the whole fleet, at one revision."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

from ds01d.adapters.fleet.book_keys import ROOT, user_prefix
from ds01d.adapters.fleet.etcd_messages import ReplyHeader, prefix_end
from ds01d.adapters.fleet.etcd_store import EtcdStore
from ds01d.adapters.fleet.kept_values import KeptValues
from ds01d.adapters.fleet.stored_values import build_contents, find_spoilt
from ds01d.errors import StoreRefused, TooMuchStored
from ds01d.model.fleet_books import (
    FleetContents,
    FleetEntry,
    Revision,
    UserEntries,
)
from ds01d.model.primitives import UserName

USER_S: Final = 4.0
"""For what one user has: others wait for their turn behind the one who asked."""
WHOLE_EVERY: Final = 20
"""After so many reads of what changed, everything is read: a store that was restored, and has the
revisions again that it had before, could not be told from one that went on."""


def read_user(store: EtcdStore, user: UserName) -> UserEntries:
    """Entries and fence of a user, at once and linearizable. Raises StoreFailed."""
    prefix, fence = user_prefix(user), 0
    values = KeptValues()
    try:
        # In one range: an entry that came after the fence was read would not be counted.
        for page in store.scan(prefix, prefix_end(prefix), within_s=USER_S):
            values.take_keys(page.kvs)
            for key in page.kvs:
                # What the key holds does not matter: its revision is the fence.
                if key.key == prefix + b"fence":
                    fence = key.mod_revision
    # Decision 359: the store answers, so it is not away, and other users are not concerned.
    except TooMuchStored as error:
        return UserEntries(user=user, entries=(), fence=Revision(0), uncounted=str(error))
    return UserEntries(
        user=user,
        entries=tuple(value for value in values.by_key.values() if isinstance(value, FleetEntry)),
        fence=Revision(fence),
        malformed=find_spoilt(values.by_key),
    )


class ContentsReader:
    """Reads the whole fleet; after the first time only what changed. Any thread may call."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._header = ReplyHeader()
        self._values = KeptValues()
        self._reads_left = 0

    def read(self) -> FleetContents:
        """Everything, of whatever store answers. Raises StoreFailed."""
        with self._lock:
            if self._reads_left == 0 or not self._catch_up():
                self._read_whole()
            return build_contents(self._header, self._values.by_key)

    def _read_whole(self) -> None:
        self._reads_left = 0  # if it fails, the next one is whole too
        self._values.clear()
        header: ReplyHeader | None = None
        for page in self._store.scan(ROOT, prefix_end(ROOT), is_checked=False):
            header = header or page.header
            self._values.take_keys(page.kvs)
        self._header = header or ReplyHeader()
        self._reads_left = WHOLE_EVERY

    def _catch_up(self) -> bool:
        """Take what changed since the last read; False where that is not enough."""
        header: ReplyHeader | None = None
        count = 0
        since = self._header.revision + 1
        pages = self._store.scan(ROOT, prefix_end(ROOT), is_checked=False, changed_since=since)
        with suppress(StoreRefused):  # the revision was compacted between two pages
            for page in pages:
                if header is None:
                    header, count = page.header, page.count
                    if not self._is_same_store(header):
                        return False
                self._values.take_keys(page.kvs)
            if header is None:
                return False
            # Nothing tells what was deleted but the number of the keys that are left.
            if len(self._values) != count:
                self._drop_deleted(header.revision)
            if len(self._values) == count:
                self._header = header
                self._reads_left -= 1
                return True
        return False

    def _is_same_store(self, header: ReplyHeader) -> bool:
        last = self._header
        # Decision 308: the term never falls either, so one that does is of a snapshot whose
        # revisions have caught up.
        return (
            header.cluster_id == last.cluster_id
            and header.revision >= last.revision
            and header.raft_term >= last.raft_term
        )

    def _drop_deleted(self, revision: int) -> None:
        # As of the revision of the changes: a later one would lack keys that the next read brings,
        # and the counts would not agree.
        pages = self._store.scan(
            ROOT, prefix_end(ROOT), is_checked=False, keys_only=True, revision=revision
        )
        self._values.retain_keys(key.key for page in pages for key in page.kvs)
