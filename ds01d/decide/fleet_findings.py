"""What a fleet's store shows that this host can only report. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Final

from ds01d.decide.fleet_books import sum_use
from ds01d.model.fleet_books import FleetContents, NodeId, NodeIdentity
from ds01d.model.fleet_drift import FleetFinding, FleetFindingKind, OwnBookings
from ds01d.model.limits import Limits
from ds01d.model.primitives import Unknown, UserName, Wall
from ds01d.text import describe_moment

PROTOCOL: Final = 1
"""The version of the keys and their values that this ds01d speaks."""
# Who may write to the store can make any number of them.
_MOST_MALFORMED: Final = 20


def find_fleet_findings(
    contents: FleetContents,
    local: OwnBookings,
    identity: NodeIdentity,
    limits: Limits | Unknown,
    *,
    unseen_since: Mapping[NodeId, Wall],
    now: Wall,
) -> tuple[FleetFinding, ...]:
    """All findings, sorted. `unseen_since`: of hosts without a lease, as far as it is known."""
    findings = [
        *_find_duplicate_names(contents, local, identity.node),
        *_find_over_quota(contents, local, limits),
        *_find_other_hosts(contents, identity, unseen_since, now),
        *_find_malformed(contents),
    ]
    return tuple(sorted(findings, key=lambda finding: (finding.kind, finding.subject)))


def name_hosts(contents: FleetContents) -> dict[NodeId, str]:
    """The name of each host that takes part, as it gave it; two may have the same."""
    return {node: identity.host for node, identity in contents.identities.items()}


def _find_duplicate_names(
    contents: FleetContents, local: OwnBookings, node: NodeId
) -> Iterator[FleetFinding]:
    hosts = name_hosts(contents)
    for booking in local.values():
        taken = contents.names.get(booking.container)
        if taken is not None and taken.node != node:
            yield FleetFinding(
                kind=FleetFindingKind.DUPLICATE_NAME,
                subject=booking.container,
                reason=f"{hosts.get(taken.node, taken.node)} has a container of that name, too",
            )


def _find_over_quota(
    contents: FleetContents, local: OwnBookings, limits: Limits | Unknown
) -> Iterator[FleetFinding]:
    """Of the users who have something here: each host reports its own."""
    if isinstance(limits, Unknown):
        return
    # Never repaired: reality is reported, and what is over is found by who looks at it.
    totals = sum_use(contents.entries)
    for user in sorted({booking.user for booking in local.values()}):
        slots, sevenths = totals.get(user, (0, 0))
        if reason := _describe_excess(user, slots, Fraction(sevenths, 7), limits):
            yield FleetFinding(kind=FleetFindingKind.OVER_QUOTA, subject=user, reason=reason)


def _describe_excess(user: UserName, slots: int, gpus: Fraction, limits: Limits) -> str:
    quota = limits.find_gpu_quota(user)
    if quota is not None:
        limit = quota.limit
        is_over = limit is not None and gpus > limit
        return f"{float(gpus):g} of {float(limit or 0):g} GPUs over all hosts" if is_over else ""
    most = limits.find_quota(user)
    is_over = most is not None and slots > most
    return f"{slots} of {most} slots over all hosts" if is_over else ""


def _find_other_hosts(
    contents: FleetContents,
    identity: NodeIdentity,
    unseen_since: Mapping[NodeId, Wall],
    now: Wall,
) -> Iterator[FleetFinding]:
    describe: Callable[[FleetFindingKind, str, str], FleetFinding] = lambda kind, subject, reason: (  # noqa: E731
        FleetFinding(kind=kind, subject=subject, reason=reason)
    )
    minimum = (contents.settings or {}).get("protocol")
    if isinstance(minimum, int) and minimum > PROTOCOL:
        reason = f"the fleet wants protocol {minimum}, and this ds01d speaks {PROTOCOL}: upgrade it"
        yield describe(FleetFindingKind.OLD_FLEET, identity.host, reason)
    slots_by_node: dict[NodeId, int] = {}
    for entry in contents.entries:
        slots_by_node[entry.node] = slots_by_node.get(entry.node, 0) + entry.count
    for node, other in contents.identities.items():
        if node == identity.node:
            continue
        if PROTOCOL not in other.protocols:
            speaks = ", ".join(map(str, other.protocols)) or "none"
            reason = f"it speaks protocol {speaks}, and this host {PROTOCOL}"
            yield describe(FleetFindingKind.OLD_FLEET, other.host, reason)
        # One without limits has an empty digest, and refuses nobody.
        digests = {identity.limits_digest, other.limits_digest} - {""}
        if len(digests) > 1:
            reason = "its limits are not those of this host: each refuses by its own"
            yield describe(FleetFindingKind.LIMITS_DIFFER, other.host, reason)
        if node not in contents.alive:
            since = unseen_since.get(node)
            ago = "" if since is None else f", {describe_moment(since - now)}"
            reason = (
                f"no heartbeat of it{ago}; its {slots_by_node.get(node, 0)} slots go on counting"
            )
            yield describe(FleetFindingKind.NODE_UNKNOWN, other.host, reason)
    # Left by a host that was forgotten while it booked, or by hand.
    for node in sorted(set(slots_by_node) - set(contents.identities)):
        reason = f"{slots_by_node[node]} slots of a host without an identity: ds01ctl fleet forget"
        yield describe(FleetFindingKind.NODE_UNKNOWN, node, reason)


def _find_malformed(contents: FleetContents) -> Iterator[FleetFinding]:
    for key, why in sorted(contents.malformed.items())[:_MOST_MALFORMED]:
        yield FleetFinding(kind=FleetFindingKind.MALFORMED_ENTRY, subject=key, reason=why)
