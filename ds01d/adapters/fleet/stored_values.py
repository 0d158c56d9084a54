"""What one key of the store holds, as a value, and what all of them are together. Pure.

Whatever somebody wrote there: what cannot be understood is a value of its own, and no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.adapters.fleet.book_format import (
    make_unknown_name,
    parse_entry,
    parse_identity,
    parse_name,
    parse_object,
    parse_summary,
)
from ds01d.adapters.fleet.book_keys import show_key, split_key
from ds01d.adapters.fleet.etcd_messages import KeyValue, ReplyHeader
from ds01d.errors import Malformed
from ds01d.model.fleet_books import (
    FleetContents,
    FleetEntry,
    NameEntry,
    NodeId,
    NodeIdentity,
    Revision,
)
from ds01d.model.primitives import ContainerName


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A value that cannot be used; of a name it is taken all the same."""

    reason: str
    container: ContainerName | None = None


@dataclass(frozen=True, slots=True)
class _Alive:
    node: NodeId


@dataclass(frozen=True, slots=True)
class _Forgotten:
    node: NodeId
    revision: Revision


@dataclass(frozen=True, slots=True)
class _Summary:
    node: NodeId
    fields: dict[str, object]


@dataclass(frozen=True, slots=True)
class _Settings:
    fields: dict[str, object]


# None: a fence, or a key of a newer version.
StoredValue = (
    FleetEntry
    | NameEntry
    | NodeIdentity
    | _Alive
    | _Forgotten
    | _Summary
    | _Settings
    | Spoilt
    | None
)


def build_contents(header: ReplyHeader, values: Mapping[bytes, StoredValue]) -> FleetContents:
    entries: list[FleetEntry] = []
    names: dict[ContainerName, NameEntry] = {}
    identities: dict[NodeId, NodeIdentity] = {}
    alive: set[NodeId] = set()
    forgotten: dict[NodeId, Revision] = {}
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
            case _Forgotten():
                forgotten[value.node] = value.revision
            case _Summary():
                summaries[value.node] = value.fields
            case _Settings():
                settings = value.fields
            # Decision 307: a name whose value cannot be read is taken, not free.
            case Spoilt(container=container) if container is not None:
                names[container] = make_unknown_name(container)
            case Spoilt() | None:
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
        forgotten=forgotten,
        malformed=find_spoilt(values),
    )


def find_spoilt(values: Mapping[bytes, StoredValue]) -> dict[str, str]:
    return {
        show_key(key): value.reason for key, value in values.items() if isinstance(value, Spoilt)
    }


def parse_key(key: KeyValue) -> StoredValue:
    """What a key has, by any writer. Raises nothing."""
    try:
        parts = split_key(key.key)
    except Malformed as error:
        # A second spelling of a user would be one whom no count finds, so it is named (decision
        # 307).
        return Spoilt(str(error))
    try:
        # What such a key holds does not matter, as for a fence.
        if len(parts) == 2 and parts[0] == "forgotten":
            return _Forgotten(NodeId(parts[1]), Revision(key.mod_revision))
        return _parse_value(parts, key.value)
    except Malformed as error:
        is_name = len(parts) == 2 and parts[0] == "names"
        return Spoilt(str(error), ContainerName(parts[1]) if is_name else None)


def _parse_value(parts: tuple[str, ...], value: bytes) -> StoredValue:
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
            return _Summary(NodeId(node), parse_summary(value))
        case ("fleet",):
            return _Settings(parse_object(value))
        # Of a newer version: no error, or the first host that is upgraded would show as damage on
        # all others.
        case _:
            return None
