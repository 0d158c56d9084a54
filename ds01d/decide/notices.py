"""Which notices follow: from a decision and its repairs, from the answer to a booking. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Final, TypeGuard

from ds01d.decide.decision import Decision
from ds01d.decide.index import BooksIndex
from ds01d.decide.ownership import NOBODY
from ds01d.model.allocation import Allocated, Refusal, Rejected
from ds01d.model.drift import Finding, FindingKind, GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.holding import Holds, VerdictReason
from ds01d.model.notice import Notice, NoticeKind
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall

# What only settles is released in a moment, and then that is reported.
_LASTING_WAITS = frozenset(
    {WaitReason.FREEZE, WaitReason.ENGINE, WaitReason.BLOCKED, WaitReason.UNDONE}
)

_QUOTA_REFUSALS = frozenset({Refusal.USER_AT_LIMIT, Refusal.AGGREGATE_GPU_QUOTA_EXCEEDED})

# What of the findings the user of the container has to know.
_OF_FINDINGS: Final[Mapping[FindingKind, NoticeKind]] = {
    FindingKind.IDLE_HOLDER: NoticeKind.GPU_IDLE,
    FindingKind.DEVICE_LOST: NoticeKind.GPU_LOST,
}


def find_notices(
    decision: Decision, drifts: Iterable[GatedDrift], hold_warnings_s: Sequence[float]
) -> Iterator[Notice]:
    """The notices of one pass; of a pass over some names, those about them.

    `drifts`: as their repairs ended. `hold_warnings_s`: how long before the end of a hold.
    """
    index = decision.index
    if index is None:
        return
    for name, verdict in decision.verdicts.items():
        if isinstance(verdict, Holds) and verdict.slots and _is_user(verdict.user):
            yield from _find_hold_end(name, verdict, verdict.user, index, hold_warnings_s)
    yield from _find_ended_holds(drifts, index)
    yield from _report_findings(decision.findings)


def explain_end_of_wait(answer: Allocated | Rejected) -> Notice | None:
    """The notice of who waited for a slot and now has it."""
    if isinstance(answer, Rejected) or answer.already:
        return None
    return Notice(
        kind=NoticeKind.WAIT_OVER,
        user=answer.user,
        subject=answer.container,
        slots=frozenset(given.slot for given in answer.all_slots),
    )


def explain_answer(
    answer: Allocated | Rejected, booked: int | Fraction, quota: int | Fraction | None
) -> Notice | None:
    """The notice of an answer that is about the user's quota; `booked`: how much they have now."""
    if isinstance(answer, Rejected):
        if answer.refusal not in _QUOTA_REFUSALS:
            return None
        return Notice(kind=NoticeKind.QUOTA_REFUSED, user=answer.user, reason=answer.reason)
    # Who asks again got nothing more, so no quota was reached by this answer.
    if answer.already or quota is None or booked < quota:
        return None
    numbers = f"{float(booked):g} of {float(quota):g} GPUs"
    return Notice(kind=NoticeKind.QUOTA_REACHED, user=answer.user, reason=numbers)


def _find_hold_end(
    name: ContainerName,
    verdict: Holds,
    user: UserName,
    index: BooksIndex,
    hold_warnings_s: Sequence[float],
) -> Iterator[Notice]:
    """The notice of a stopped container whose hold ends soon, or is over and stays in force."""
    now = index.snapshot.now
    left_s = math.inf if verdict.until is None else verdict.until - now.boot
    # The last warning that is due: a user who missed the earlier ones gets no second one at once.
    stage = min((warning for warning in hold_warnings_s if left_s <= warning), default=None)
    if verdict.why is VerdictReason.OVERDUE:
        # Decision 227: time does not end such a hold, so the notice names what does.
        reason = f"docker rm {name} frees it"
        kind, until, stage = NoticeKind.HOLD_ENDED, None, 0.0
    elif verdict.why is VerdictReason.HOLD and stage is not None:
        kind, until, reason = NoticeKind.HOLD_ENDING, Wall(now.wall + left_s), ""
    else:
        return
    yield Notice(
        kind=kind,
        user=user,
        subject=name,
        slots=verdict.slots,
        until=until,
        stage=stage,
        reason=reason,
    )


def _report_findings(findings: Iterable[Finding]) -> Iterator[Notice]:
    for finding in findings:
        kind = _OF_FINDINGS.get(finding.kind)
        if kind is not None and finding.container is not None and _is_user(finding.user):
            yield Notice(
                kind=kind,
                user=finding.user,
                subject=finding.container,
                slots=frozenset(finding.slots),
                since=finding.since,
            )


def _find_ended_holds(drifts: Iterable[GatedDrift], index: BooksIndex) -> Iterator[Notice]:
    """Released slots of stopped containers, and those whose release waits for somebody."""
    slots: defaultdict[tuple[NoticeKind, ContainerName, str], set[SlotId]] = defaultdict(set)
    for gated in drifts:
        drift = gated.drift
        if drift.kind is not Kind.EXPIRED_HOLD or drift.container is None or drift.slot is None:
            continue
        if gated.outcome is Outcome.DONE:
            slots[NoticeKind.SLOT_RELEASED, drift.container, ""].add(drift.slot)
        elif gated.outcome is Outcome.WAITING and gated.gate in _LASTING_WAITS:
            slots[NoticeKind.HOLD_ENDED, drift.container, gated.reason].add(drift.slot)
    for (kind, name, reason), of_container in slots.items():
        user = index.find_booker(name)
        if _is_user(user):
            yield Notice(
                kind=kind, user=user, subject=name, slots=frozenset(of_container), reason=reason
            )


def _is_user(user: UserName | None) -> TypeGuard[UserName]:
    return user is not None and user != NOBODY
