"""What is in the store, as values: of one user, and of the whole fleet, at one revision."""

from __future__ import annotations

from ds01d.adapters.fleet.book_format import parse_entry, parse_identity, parse_name, parse_object
from ds01d.adapters.fleet.book_keys import ROOT, show_key, split_key, user_prefix
from ds01d.adapters.fleet.etcd_entries import make_unknown_name
from ds01d.adapters.fleet.etcd_messages import KeyValue, ReplyHeader, prefix_end
from ds01d.adapters.fleet.etcd_store import EtcdStore
from ds01d.errors import Malformed
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


class _Contents:
    """Gathers keys page by page, so that the answers themselves need not be kept."""

    def __init__(self) -> None:
        self.entries: list[FleetEntry] = []
        self.fences: dict[str, int] = {}
        self.identities: dict[NodeId, NodeIdentity] = {}
        self.alive: set[NodeId] = set()
        self.names: dict[ContainerName, NameEntry] = {}
        self.summaries: dict[NodeId, dict[str, object]] = {}
        self.settings: dict[str, object] | None = None
        self.malformed: dict[str, str] = {}
        self._words: dict[str, str] = {}

    def add(self, key: KeyValue) -> None:
        """Whatever is wrong with a key is kept as `malformed`; keys of newer versions are not."""
        try:
            self._add(key)
        except Malformed as error:
            self.malformed[show_key(key.key)] = str(error)

    def _add(self, key: KeyValue) -> None:
        match split_key(key.key):
            case "users", user, "held", node, booking:
                user, node = self._share(user), self._share(node)
                self.entries.append(parse_entry(user, node, booking, key.value))
            # What the key holds does not matter: its revision is the fence.
            case "users", user, "fence":
                self.fences[user] = key.mod_revision
            case "names", container:
                name = ContainerName(container)
                # It is taken, whoever has it.
                self.names[name] = make_unknown_name(name)
                self.names[name] = parse_name(container, key.value)
            case "nodes", node, "identity":
                self.identities[NodeId(node)] = parse_identity(node, key.value)
            case "nodes", node, "alive":
                self.alive.add(NodeId(node))
            case "summary", node:
                self.summaries[NodeId(node)] = parse_object(key.value)
            case ("fleet",):
                self.settings = parse_object(key.value)
            # Of a newer version.
            case _:
                pass

    def _share(self, word: str) -> str:
        """The same object for the same text: 100,000 entries name few users and hosts."""
        return self._words.setdefault(word, word)


def read_user(store: EtcdStore, user: UserName) -> UserEntries:
    """Entries and fence of a user, at once and linearizable. Raises StoreFailed."""
    # In one range: an entry that came after the fence was read would not be counted.
    contents, _ = _gather(store, user_prefix(user), is_checked=True)
    return UserEntries(
        user=user,
        entries=tuple(contents.entries),
        fence=Revision(contents.fences.get(user, 0)),
        malformed=contents.malformed,
    )


def read_contents(store: EtcdStore) -> FleetContents:
    """Everything, of whatever store answers. Raises StoreFailed."""
    contents, header = _gather(store, ROOT, is_checked=False)
    return FleetContents(
        cluster=header.cluster,
        revision=Revision(header.revision),
        identities=contents.identities,
        alive=frozenset(contents.alive),
        entries=tuple(contents.entries),
        names=contents.names,
        summaries=contents.summaries,
        settings=contents.settings,
        malformed=contents.malformed,
    )


def _gather(store: EtcdStore, prefix: bytes, *, is_checked: bool) -> tuple[_Contents, ReplyHeader]:
    contents, header = _Contents(), ReplyHeader()
    for header, keys in store.scan(prefix, prefix_end(prefix), is_checked=is_checked):  # noqa: B007 - of the last page
        for key in keys:
            contents.add(key)
    return contents, header
