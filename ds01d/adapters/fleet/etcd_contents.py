"""What is in the store, as values: of one user, and of the whole fleet, at one revision."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ds01d.adapters.fleet.book_format import (
    make_unknown_name,
    parse_entry,
    parse_identity,
    parse_name,
    parse_object,
)
from ds01d.adapters.fleet.book_keys import ROOT, show_key, split_key, user_prefix
from ds01d.adapters.fleet.etcd_messages import KeyValue, ReplyHeader, prefix_end
from ds01d.adapters.fleet.etcd_store import EtcdStore
from ds01d.errors import Malformed, StoreRefused
from ds01d.model.fleet_books import (
    FleetContents,
    FleetEntry,
    NameEntry,
    NodeId,
    NodeIdentity,
    Revision,
    UserEntries,
)
from ds01d.model.primitives import ContainerName, UserName

USER_S: Final = 4.0
"""For what one user has: others wait for their turn behind the one who asked."""
WHOLE_EVERY: Final = 20
"""After so many reads of what changed, everything is read: a store that was restored, and has the
revisions again that it had before, could not be told from one that went on."""


@dataclass(frozen=True, slots=True)
class _Spoilt:
    """A value that cannot be used; of a name it is taken all the same."""

    reason: str
    container: ContainerName | None = None


@dataclass(frozen=True, slots=True)
class _Alive:
    node: NodeId


@dataclass(frozen=True, slots=True)
class _Summary:
    node: NodeId
    fields: dict[str, object]


@dataclass(frozen=True, slots=True)
class _Settings:
    fields: dict[str, object]


# None: a fence, or a key of a newer version.
_Value = FleetEntry | NameEntry | NodeIdentity | _Alive | _Summary | _Settings | _Spoilt | None


def read_user(store: EtcdStore, user: UserName) -> UserEntries:
    """Entries and fence of a user, at once and linearizable. Raises StoreFailed."""
    prefix, fence = user_prefix(user), 0
    values: dict[bytes, _Value] = {}
    # In one range: an entry that came after the fence was read would not be counted.
    for page in store.scan(prefix, prefix_end(prefix), within_s=USER_S):
        for key in page.kvs:
            values[key.key] = parse_key(key)
            # What the key holds does not matter: its revision is the fence.
            if key.key == prefix + b"fence":
                fence = key.mod_revision
    return UserEntries(
        user=user,
        entries=tuple(value for value in values.values() if isinstance(value, FleetEntry)),
        fence=Revision(fence),
        malformed=_find_spoilt(values),
    )


class ContentsReader:
    """Reads the whole fleet; after the first time only what changed. Any thread may call."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._header = ReplyHeader()
        self._values: dict[bytes, _Value] = {}
        self._reads_left = 0

    def read(self) -> FleetContents:
        """Everything, of whatever store answers. Raises StoreFailed."""
        with self._lock:
            if self._reads_left == 0 or not self._catch_up():
                self._read_whole()
            return _build_contents(self._header, self._values)

    def _read_whole(self) -> None:
        self._reads_left = 0  # if it fails, the next one is whole too
        self._values = {}
        header: ReplyHeader | None = None
        for page in self._store.scan(ROOT, prefix_end(ROOT), is_checked=False):
            header = header or page.header
            self._take_keys(page.kvs)
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
                self._take_keys(page.kvs)
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

    def _take_keys(self, keys: Iterable[KeyValue]) -> None:
        for key in keys:
            self._values[key.key] = parse_key(key)

    def _drop_deleted(self, revision: int) -> None:
        # As of the revision of the changes: a later one would lack keys that the next read brings,
        # and the counts would not agree.
        pages = self._store.scan(
            ROOT, prefix_end(ROOT), is_checked=False, keys_only=True, revision=revision
        )
        left = {key.key for page in pages for key in page.kvs}
        self._values = {key: value for key, value in self._values.items() if key in left}


def _build_contents(header: ReplyHeader, values: dict[bytes, _Value]) -> FleetContents:
    entries: list[FleetEntry] = []
    names: dict[ContainerName, NameEntry] = {}
    identities: dict[NodeId, NodeIdentity] = {}
    alive: set[NodeId] = set()
    summaries: dict[NodeId, dict[str, object]] = {}
    settings: dict[str, object] | None = None
    for value in values.values():
        match value:
            case FleetEntry():
                entries.append(value)
            case NameEntry():
                names[value.container] = value
            case NodeIdentity():
                identities[value.node] = value
            case _Alive():
                alive.add(value.node)
            case _Summary():
                summaries[value.node] = value.fields
            case _Settings():
                settings = value.fields
            # Decision 307: a name whose value cannot be read is taken, not free.
            case _Spoilt(container=container) if container is not None:
                names[container] = make_unknown_name(container)
            case _Spoilt() | None:
                pass
    return FleetContents(
        cluster=header.cluster,
        revision=Revision(header.revision),
        identities=identities,
        alive=frozenset(alive),
        entries=tuple(entries),
        names=names,
        summaries=summaries,
        settings=settings,
        malformed=_find_spoilt(values),
    )


def _find_spoilt(values: dict[bytes, _Value]) -> dict[str, str]:
    return {
        show_key(key): value.reason for key, value in values.items() if isinstance(value, _Spoilt)
    }


def parse_key(key: KeyValue) -> _Value:
    """What a key has, by any writer. Raises nothing."""
    try:
        parts = split_key(key.key)
    except Malformed as error:
        # A second spelling of a user would be one whom no count finds, so it is named (decision
        # 307).
        return _Spoilt(str(error))
    try:
        return _parse_value(parts, key.value)
    except Malformed as error:
        is_name = len(parts) == 2 and parts[0] == "names"
        return _Spoilt(str(error), ContainerName(parts[1]) if is_name else None)


def _parse_value(parts: tuple[str, ...], value: bytes) -> _Value:
    match parts:
        case "users", user, "held", node, booking:
            return parse_entry(user, node, booking, value)
        case "names", container:
            return parse_name(container, value)
        case "nodes", node, "identity":
            return parse_identity(node, value)
        case "nodes", node, "alive":
            return _Alive(NodeId(node))
        case "summary", node:
            return _Summary(NodeId(node), parse_object(value))
        case ("fleet",):
            return _Settings(parse_object(value))
        # Of a newer version: no error, or the first host that is upgraded would show as damage on
        # all others.
        case _:
            return None
