"""The keys of the store as the campaign reads them, from their description alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

PREFIX = "/ds01/v1/"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """`users/USER/held/NODE/BOOKING`."""

    user: str
    node: str
    booking: str


@dataclass(frozen=True, slots=True)
class FenceKey:
    """`users/USER/fence`."""

    user: str


@dataclass(frozen=True, slots=True)
class NameKey:
    """`names/CONTAINER`."""

    container: str


@dataclass(frozen=True, slots=True)
class NodeKey:
    """`nodes/NODE/identity` or `nodes/NODE/alive`."""

    node: str
    what: str


Key = HeldKey | FenceKey | NameKey | NodeKey


def parse_key(key: str) -> Key | None:
    """What a key is for; None for any other one."""
    parts = [unquote(part) for part in key.removeprefix(PREFIX).split("/")]
    match parts:
        case ["users", user, "held", node, booking]:
            return HeldKey(user, node, booking)
        case ["users", user, "fence"]:
            return FenceKey(user)
        case ["names", container]:
            return NameKey(container)
        case ["nodes", node, ("identity" | "alive") as what]:
            return NodeKey(node, what)
        case _:
            return None


def weigh_entry(entry: Mapping[str, Any]) -> float:
    """How many GPUs an entry counts for."""
    return int(entry["sevenths"]) / 7


def count_slots(entry: Mapping[str, Any]) -> int:
    """How many slots an entry counts for."""
    return int(entry["count"])
