"""What one user has and may have, as one document: `ds01ctl me`. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from ds01d.decide.short_names import split_name
from ds01d.decide.user_quota import weigh_slot
from ds01d.documents.notices import OwnNotice, OwnNoticeRequest
from ds01d.documents.quota import QuotaDocument
from ds01d.documents.values import DisplayTime, DocumentPart, display_time
from ds01d.model.drift import Finding
from ds01d.model.primitives import ContainerName, SlotId
from ds01d.model.quota import QuotaUnit
from ds01d.reporting.status import Holder, PublishedDrift, SlotStatus


class OwnSlot(DocumentPart, frozen=True):
    """A slot that the user holds, or only uses (`is_booked` false).

    `until`: when the hold of a stopped container ends. Memory in bytes, `utilization` of the device
    in percent; None: not known. `idle_since`: it uses nothing of its slots since then.
    `others`: who else uses the device.
    """

    slot: SlotId
    type: str
    container: ContainerName
    is_booked: bool
    state: str
    until: DisplayTime | None
    utilization: int | None
    memory_used: int | None
    memory_total: int | None
    processes: int | None
    idle_since: DisplayTime | None
    others: tuple[str, ...]
    drifts: tuple[str, ...]


class OwnDrift(DocumentPart, frozen=True):
    """A drift of the user's containers, and when it is repaired as far as that is known."""

    kind: str
    container: ContainerName | None
    slot: SlotId | None
    verdict: str
    reason: str
    until: DisplayTime | None


class FreeSlots(DocumentPart, frozen=True):
    """Slots of one profile (or whole GPUs) that nobody holds or uses.

    `allowed`: the quota leaves room for one of them; None: that is not known.
    """

    type: str
    slots: tuple[SlotId, ...]
    allowed: bool | None


class PersonalDocument(DocumentPart, frozen=True):
    """The object that `me --json` prints. Each `problems`: what is not shown, and why."""

    user: str
    at: DisplayTime
    readings_at: DisplayTime | None
    slots: tuple[OwnSlot, ...]
    quota: QuotaDocument | None
    drifts: tuple[OwnDrift, ...]
    findings: tuple[Finding, ...]
    notices: tuple[OwnNotice, ...]
    notice_requests: tuple[OwnNoticeRequest, ...]
    free: tuple[FreeSlots, ...]
    problems: tuple[str, ...]


def list_own_slots(user: str, slots: Iterable[SlotStatus]) -> tuple[OwnSlot, ...]:
    """The slots that containers of a user hold, then those that they only use."""
    pairs = [
        *((slot, holder, True) for slot in slots for holder in slot.holders),
        *((slot, holder, False) for slot in slots for holder in slot.foreign_holders),
    ]
    return tuple(
        _build_own_slot(slot, holder, is_booked=is_booked)
        for slot, holder, is_booked in pairs
        if holder.user == user
    )


def _build_own_slot(slot: SlotStatus, holder: Holder, *, is_booked: bool) -> OwnSlot:
    # By its name, which is unique: a user may share a slot with another container of theirs.
    names = ((other.container, other.container) for other in slot.holders)
    others = (*names, *zip(slot.foreign, slot.shown_foreign, strict=True))
    return OwnSlot(
        slot=slot.id,
        type=slot.kind,
        container=holder.container,
        is_booked=is_booked,
        state=holder.state,
        until=display_time(holder.until),
        utilization=slot.utilization,
        memory_used=holder.memory_used,
        memory_total=slot.memory_total,
        processes=holder.processes,
        idle_since=display_time(holder.idle_since),
        others=tuple(dict.fromkeys(shown for name, shown in others if name != holder.container)),
        drifts=slot.drifts,
    )


def list_own_drifts(
    names: frozenset[ContainerName], uid: int, drifts: Iterable[PublishedDrift]
) -> tuple[OwnDrift, ...]:
    """The open drifts of the user's containers: `names`, and what has their uid in its name."""
    return tuple(
        OwnDrift(
            kind=drift.kind.value,
            container=drift.container,
            slot=drift.slot,
            verdict=drift.outcome.value,
            reason=drift.shown_reason,
            until=display_time(drift.until),
        )
        for drift in drifts
        if is_own(drift.container, names, uid)
    )


def is_own(name: ContainerName | None, names: frozenset[ContainerName], uid: int) -> bool:
    # By the uid as well: a drift may be about a container that holds nothing yet.
    return name is not None and (name in names or split_name(name)[1] == uid)


def group_free_slots(
    free: Sequence[SlotStatus], quota: QuotaDocument | None
) -> tuple[FreeSlots, ...]:
    """The free slots by profile, and whether the quota has room for another one of each."""
    # By profile: quotas and requests name these, and of 56 slots the list would fill the screen.
    by_type: dict[str, list[SlotStatus]] = {}
    for slot in free:
        by_type.setdefault(slot.kind, []).append(slot)
    return tuple(
        FreeSlots(
            type=name,
            slots=tuple(slot.id for slot in slots),
            allowed=None if quota is None else has_room(quota, slots[0]),
        )
        for name, slots in sorted(by_type.items())
    )


def has_room(quota: QuotaDocument, slot: SlotStatus) -> bool | None:
    """Whether a quota leaves room for a slot, by what is left of it now; None: not known."""
    if quota.left is None:
        return True
    if quota.unit == QuotaUnit.SLOTS.value:
        has_left = quota.left >= 1
    else:
        # What is left is rounded to four digits, a seventh is not.
        needed = weigh_slot(slot, slot.profile) - Fraction(1, 1000)
        has_left = Fraction(quota.left) >= needed
    # Unknown is not nothing: what they have on other hosts may fill the quota.
    elsewhere = quota.other_hosts
    return None if has_left and elsewhere is not None and elsewhere.used is None else has_left
