"""How much of the GPUs a user may have, has, and has left, as a document."""

from __future__ import annotations

from fractions import Fraction

import msgspec

from ds01d.documents.values import DisplayTime, DocumentPart, display_time
from ds01d.model.quota import OtherHostsUse, QuotaStatus


class WaitingRequest(DocumentPart, frozen=True):
    """A call that waits for `count` slots, or for `slot`. `position`: in the queue, 1 is next.

    `reason`: why there is none yet.
    """

    container: str
    position: int
    since: DisplayTime
    count: int
    slot: str | None
    profile: str | None
    reason: str


class OtherHosts(DocumentPart, frozen=True):
    """What the user has on the other hosts of a fleet, as its store had it `at` that time.

    `used`: "held" in documents, in the unit of the quota; None: unknown. `hosts`: where that is.
    `problem`: why it is unknown, or why there is nothing newer; "": neither.
    """

    used: float | None = msgspec.field(name="held")
    hosts: tuple[str, ...]
    at: DisplayTime | None
    problem: str


class QuotaDocument(DocumentPart, frozen=True):
    """A quota and what counts for it, in `unit`: slots, or GPU-equivalents.

    `limit`, `left` None: any amount. `used`: of containers, "held" in documents; `reserved`:
    allocated, and no container is there yet. `slots_per_container`: None for any number. `source`:
    the file and the key that give the limit. `waiting`: calls of this user that wait for a slot;
    `ahead`: calls of others that a new one would be served after; None: ds01d was not asked.
    `requests`: those calls of this user, in their order. `other_hosts`: None where this host
    shares no store with others; `left` is without what the user has there, and where that is
    unknown, it is `left` at most.
    """

    user: str
    group: str
    priority: int
    unit: str
    limit: float | None
    used: float = msgspec.field(name="held")
    reserved: float
    left: float | None
    slots_per_container: int | None
    source: str
    waiting: int | None = None
    ahead: int | None = None
    requests: tuple[WaitingRequest, ...] = ()
    other_hosts: OtherHosts | None = None


def build_quota_document(
    status: QuotaStatus,
    *,
    waiting: int | None = None,
    ahead: int | None = None,
    requests: tuple[WaitingRequest, ...] = (),
) -> QuotaDocument:
    return QuotaDocument(
        user=status.user,
        group=status.group,
        priority=status.priority,
        unit=status.unit.value,
        limit=_to_number(status.limit),
        used=_to_number(status.used) or 0.0,
        reserved=_to_number(status.reserved) or 0.0,
        left=_to_number(status.left),
        slots_per_container=status.slots_per_container,
        source=status.source,
        waiting=waiting,
        ahead=ahead,
        requests=requests,
        other_hosts=_build_other_hosts(status.other_hosts),
    )


def _build_other_hosts(use: OtherHostsUse | None) -> OtherHosts | None:
    if use is None:
        return None
    return OtherHosts(
        used=_to_number(use.used), hosts=use.hosts, at=display_time(use.at), problem=use.problem
    )


def _to_number(amount: Fraction | None) -> float | None:
    # Decision 224: sevenths of a GPU are exact until here, where they are only shown.
    return None if amount is None else round(float(amount), 4)
