"""What users have on the other hosts of a fleet, for views of a quota. Pure.

For display: whether a booking is allowed is decided by a new read of the store
(`reconcile/fleet_booking.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from urllib.parse import quote

from ds01d.decide.fleet_books import FleetUse, index_hosts
from ds01d.model.fleet_books import FleetContents, FleetEntry, NodeId
from ds01d.model.fleet_drift import Membership, MembershipState
from ds01d.model.primitives import UserName, Wall
from ds01d.model.quota import OtherHostsUse, QuotaUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class UseElsewhere:
    """Of each user who has something on another host. `malformed`: keys that nobody can read."""

    uses: Mapping[UserName, FleetUse] = field(default_factory=dict)
    malformed: tuple[str, ...] = ()


def sum_use_elsewhere(contents: FleetContents, node: NodeId) -> UseElsewhere:
    """Sum up the entries of all hosts but `node`, whose books are the truth about it."""
    names = {other: identity.host for other, identity in contents.identities.items()}
    by_user: dict[UserName, list[FleetEntry]] = {}
    for entry in contents.entries:
        if entry.node != node:
            by_user.setdefault(entry.user, []).append(entry)
    uses = {user: _sum_entries(entries, names) for user, entries in by_user.items()}
    return UseElsewhere(uses=uses, malformed=tuple(contents.malformed))


def _sum_entries(entries: Iterable[FleetEntry], names: Mapping[NodeId, str]) -> FleetUse:
    listed, name_host = list(entries), index_hosts(names)
    return FleetUse(
        slots=sum(entry.count for entry in listed),
        sevenths=sum(entry.sevenths for entry in listed),
        hosts=tuple(sorted({name_host(entry.node) for entry in listed})),
    )


def describe_use_elsewhere(
    user: UserName,
    unit: QuotaUnit,
    last_use: UseElsewhere | None,
    at: Wall | None,
    membership: Membership,
) -> OtherHostsUse:
    """What a user has elsewhere, in `unit`, by what was seen `at` that time; None: never yet."""
    problem = ""
    if membership.state is not MembershipState.MEMBER:
        problem = membership.reason or "this host does not take part in the fleet yet"
    if last_use is None or at is None:
        return OtherHostsUse(problem=problem or "the store of the fleet has not been read yet")
    # A restored store has not what was booked since its backup, until all have reported.
    if membership.state is MembershipState.RESTORED:
        return OtherHostsUse(problem=problem)
    # As reservations do: what cannot be read may be any number of slots.
    prefix = f"/users/{quote(user, safe='', errors='surrogatepass')}/"
    for key in last_use.malformed:
        if prefix in key:
            return OtherHostsUse(problem=f"an entry in the store is malformed: {key}")
    use = last_use.uses.get(user, FleetUse())
    used = use.gpus if unit is QuotaUnit.GPUS else Fraction(use.slots)
    return OtherHostsUse(used=used, hosts=use.hosts, at=at, problem=problem)
