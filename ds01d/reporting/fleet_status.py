"""What the status has of a host in its fleet, where it takes part in one.

As in `status`: times are seconds since the epoch, keys may be added.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ds01d.model.primitives import ContainerName, UserName, Wall

MOST_SHOWN: Final = 200


class FleetHostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A host that takes part, and its slots there. `unseen_since`: without a heartbeat."""

    host: str
    node: str
    version: str
    slots: int
    unseen_since: Wall | None = None


class FleetDriftStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of this host that is not as its books are. `outcome`: as that of a drift."""

    kind: str
    container: ContainerName
    user: UserName
    outcome: str
    difference: str
    gate: str | None = None
    reason: str = ""
    first_seen: Wall | None = None


class FleetFindingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A problem that the store shows. `subject`: a container, a user, a host or a key."""

    kind: str
    subject: str
    reason: str


class FleetCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Of all that there is, also where the lists of the status are cut.

    `hosts`: with those that are `unseen`. `drifts`: by kind and outcome.
    """

    hosts: int = 0
    unseen: int = 0
    drifts: dict[str, dict[str, int]] = {}
    findings: dict[str, int] = {}


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How this host stands to the store of its fleet, and what the last pass over that saw.

    `state`: joining, member, away, fenced or restored, `since` then, for `reason`. `at`: of that
    pass, None before the first. `entries`: of all hosts.
    """

    state: str
    since: Wall
    reason: str = ""
    node: str = ""
    at: Wall | None = None
    cluster: str = ""
    revision: int = 0
    entries: int = 0
    counts: FleetCounts = FleetCounts()
    # At most `MOST_SHOWN` of each. Hosts also without a heartbeat: what they had goes on counting.
    hosts: tuple[FleetHostStatus, ...] = ()
    drifts: tuple[FleetDriftStatus, ...] = ()
    findings: tuple[FleetFindingStatus, ...] = ()
