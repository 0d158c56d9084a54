"""What it means that a store is not as it was left: of a host, or as a whole. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from ds01d.decide.fleet_findings import name_hosts
from ds01d.model.fleet_books import MAX_INCARNATION, FleetContents, NodeId, NodeIdentity

SYNCED: Final = "synced"
"""The key of a summary that has at which revision a host had reported all that it has."""


def list_unreported(
    contents: FleetContents, remembered: Mapping[NodeId, str], restored_at: int
) -> list[str]:
    """The names of the hosts without a report that is newer than `restored_at`.

    Nobody waits for one that was forgotten since: what was forgotten before may be of the backup.
    `remembered`: the hosts that took part before, with their names: some may have joined after the
    backup was made.
    """
    # A host that is in neither has never booked in what this host saw of the store.
    names = {**remembered, **name_hosts(contents)}
    # Decision 354: an older ds01d leaves the key of a host that has rejoined.
    forgotten = {
        node
        for node, revision in contents.forgotten.items()
        if revision > restored_at and node not in contents.identities
    }
    # A host that took another ID, which an admin then forgets by the former one.
    counts = Counter(names.values())
    return sorted(
        name if counts[name] == 1 else f"{name} ({node})"
        for node, name in names.items()
        if node not in forgotten and not _has_reported(contents, node, restored_at)
    )


def has_lost_hosts(contents: FleetContents, node: NodeId, remembered: Iterable[NodeId]) -> bool:
    """Whether hosts are missing that nobody had forgotten: their keys were deleted, or put back.

    `node`: the host that asks, which took part.
    """
    return any(
        host not in contents.identities and host not in contents.forgotten
        for host in (node, *remembered)
    )


def _has_reported(contents: FleetContents, node: NodeId, restored_at: int) -> bool:
    synced = contents.summaries.get(node, {}).get(SYNCED)
    if not isinstance(synced, dict):
        return False
    revision = synced.get("revision")
    # Above it: a summary that was put back with the store is not newer than the store was.
    is_newer = type(revision) is int and revision > restored_at
    return is_newer and synced.get("cluster") == contents.cluster


def describe_wait(unreported: list[str]) -> str:
    """Why a host reserves nothing in a store that was put back."""
    return (
        "the store lacks what this host saw of it; not reported yet:"
        f" {', '.join(unreported)}: wait for them, ds01ctl fleet forget those that are gone for"
        " good, or ds01ctl thaw --fleet"
    )


def describe_fence(taken: NodeIdentity | None) -> str:
    """Why a host changes nothing in the store. `taken`: what that has of it, None for nothing."""
    why = (
        "the store does not know this host any more"
        if taken is None
        else f"{taken.host} took part as this host since: one is a copy of the other, or this one"
        " was put back from an image"
    )
    return f"{why}: ds01ctl fleet rejoin"


def find_last_incarnation(incarnation: int) -> str:
    """Why a host cannot take part by its ID any more; "" if it can."""
    if incarnation < MAX_INCARNATION:
        return ""
    return (
        f"the incarnation of this host is {incarnation:.6g}, and none is higher:"
        " ds01ctl fleet rejoin --as-new"
    )
