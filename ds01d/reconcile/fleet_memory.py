"""What a host keeps of its fleet between two starts, in its own directory: who it is there.

A copy that is lost or cannot be parsed is not made up again: the host would count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from json import dumps, loads
from typing import Any, Final, Protocol

from ds01d.decide.fleet_restore import has_lost_hosts
from ds01d.errors import Ds01Error, Malformed
from ds01d.model.fleet_books import Extra, FleetContents, NodeId, NodeIdentity
from ds01d.text import make_printable

FILE: Final = "fleet.json"
_VERSION: Final = 1
_MAX_NODE: Final = 64  # characters
_MAX_NAME: Final = 253
_MOST_NODES: Final = 4096


class FleetStore(Protocol):
    """ds01d's own directory."""

    def load_kept(self, name: str) -> bytes | None:
        """A file, None without one. Raises `Malformed` for one that cannot be read."""

    def save(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Replace a file. Raises `WriteFailed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMemory:
    """`incarnation`: the last one that the store took from this host; 0: none yet.

    `nonce`: made up for the next one before the store is asked for it. `cluster`, `revision`: the
    newest that was seen. `restored_at`: the store had lost what it had; it was at that revision
    when this host saw it; None: it has not. `nodes`: the hosts that took part, with their names.
    """

    node: NodeId
    incarnation: int = 0
    nonce: str = ""
    cluster: str = ""
    revision: int = 0
    restored_at: int | None = None
    nodes: Mapping[NodeId, str] = field(default_factory=dict)

    def is_restored(self, contents: FleetContents) -> bool:
        """Whether the store is another one, or older than what was seen of it."""
        # Decision 314: members of one etcd never show less than one of them has shown (linearizable
        # reads), so that is a store that was put back.
        if not self.cluster:
            return False
        return contents.cluster != self.cluster or contents.revision < self.revision

    def find_former(self, contents: FleetContents) -> int | None:
        """The incarnation that this host had; None if the store does not have it as it was left."""
        taken, before = contents.identities.get(self.node), self.incarnation
        # Whatever else explains that it is not there: an admin said so (decision 354).
        if taken is None and self.node in contents.forgotten:
            return None
        stored = 0 if taken is None else taken.incarnation
        if taken is not None and self.nonce and taken.nonce == self.nonce:
            return stored  # ours, by a call whose answer was lost
        if self.restored_at is not None and stored <= before:
            return before  # the store was put back, and that explains what it has
        return before if stored == before else None

    def note_losses(self, contents: FleetContents) -> FleetMemory:
        """What is to be remembered by a host that rejoins, which may be because of a loss."""
        # It remembers what is missing, however often it is asked.
        if self.restored_at is not None:
            return self
        # Decision 355: entries may be gone as the identities are, and would count for nobody.
        if has_lost_hosts(contents, self.node, self.nodes):
            nodes = {n: name for n, name in self.nodes.items() if n not in contents.forgotten}
            return replace(self, restored_at=contents.revision, nodes=nodes)
        return self

    def become_new(self, node: NodeId) -> FleetMemory:
        """The same host by another ID: what it knows of the store and of the others stays."""
        others = {n: name for n, name in self.nodes.items() if n != self.node}
        return replace(self, node=node, incarnation=0, nonce="", nodes=others)

    def make_identity(self, facts: HostFacts, incarnation: int, extra: Extra) -> NodeIdentity:
        """What the store is to have of this host. `extra`: fields of a newer version there."""
        return NodeIdentity(
            node=self.node,
            host=facts.host,
            incarnation=incarnation,
            boot_id=facts.boot_id,
            engine_id=facts.engine_id,
            version=facts.version,
            protocols=facts.protocols,
            limits_digest=facts.limits_digest,
            nonce=self.nonce,
            extra=extra,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What this host shows of itself."""

    host: str
    boot_id: str
    engine_id: str
    version: str
    protocols: tuple[int, ...]
    limits_digest: str = ""


def load_memory(store: FleetStore, make_id: Callable[[], str]) -> FleetMemory:
    """What is kept; of a host that never took part, with an ID that is made up now.

    Raises `Malformed` for a file that cannot be read or understood.
    """
    data = store.load_kept(FILE)
    # Also after a new installation: then the admin forgets the former entry.
    if data is None:
        return FleetMemory(node=NodeId(make_id()))
    try:
        return _parse_memory(loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed(
            f"{FILE} in the state directory is damaged ({type(error).__name__}): remove it, and run"
            " ds01ctl fleet forget for the former entry of this host"
        ) from error


def clean_nodes(names: Mapping[NodeId, str]) -> dict[NodeId, str]:
    """Hosts by their IDs as they may be kept, whatever the store has of them.

    An ID that no ds01d can have made up is left out: nothing is waited for that it does not report.
    """
    # Decision 341: a file that the store can make unreadable would fence this host.
    short_names = {
        node: make_printable(name)[:_MAX_NAME]
        for node, name in names.items()
        if len(node) <= _MAX_NODE and node.isprintable()
    }
    return dict(islice(sorted(short_names.items()), _MOST_NODES))


def find_node(store: FleetStore, make_id: Callable[[], str]) -> NodeId:
    """The ID of this host in the store, kept from now on; one for nothing if it cannot be kept."""
    try:
        is_new = store.load_kept(FILE) is None
        memory = load_memory(store, make_id)
        # At a reload the former member may be writing it: what it has kept is newer than this.
        if is_new:
            save_memory(store, memory, durable=True)
    except Ds01Error:
        return NodeId(make_id())  # the member finds the same problem, and fences this host
    return memory.node


def save_memory(store: FleetStore, memory: FleetMemory, *, durable: bool) -> None:
    """Raises `WriteFailed`."""
    store.save(FILE, dumps({"v": _VERSION, **asdict(memory)}).encode(), durable=durable)


def _parse_memory(raw: Any) -> FleetMemory:  # noqa: ANN401 - any JSON
    expected = {entry.name for entry in fields(FleetMemory)}
    # Without the keys of a newer version: after a downgrade the others still count.
    values = {key: value for key, value in raw.items() if key in expected}
    # An earlier ds01d kept the names of other hosts as the store had them.
    values["nodes"] = clean_nodes(values.get("nodes", {}))
    memory = FleetMemory(**values)
    # The file may have been edited by hand: a number that is none would raise in a pass.
    numbers = (memory.incarnation, memory.revision, memory.restored_at or 0)
    texts = (memory.node, memory.nonce, memory.cluster)
    if not memory.node or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError
    if any(type(text) is not str or not text.isprintable() for text in texts):
        raise TypeError
    return memory
