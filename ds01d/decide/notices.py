"""Which notices follow: from a decision and its repairs, from the answer to a booking. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TypeGuard

from ds01d.decide.decision import Decision
from ds01d.decide.index import BooksIndex
from ds01d.decide.ownership import NOBODY
from ds01d.model.allocation import Allocated, Refusal, Rejected
from ds01d.model.drift import GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.holding import Holds, VerdictReason
from ds01d.model.notice import Notice, NoticeKind
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall

# What only settles is released in a moment, and then that is reported.
_LASTING_WAITS = frozenset(
    {WaitReason.FREEZE, WaitReason.ENGINE, WaitReason.BLOCKED, WaitReason.UNDONE}
)

_QUOTA_REFUSALS = frozenset({Refusal.USER_AT_LIMIT, Refusal.AGGREGATE_GPU_QUOTA_EXCEEDED})


def find_notices(
    decision: Decision, drifts: Iterable[GatedDrift], hold_warning_s: float
) -> Iterator[Notice]:
    """The notices of one pass; of a pass over some names, those about them.

    `drifts`: as their repairs ended.
    """
    index = decision.index
    if index is None:
        return
    for name, verdict in decision.verdicts.items():
        if isinstance(verdict, Holds) and verdict.slots and _is_user(verdict.user):
            yield from _find_hold_end(name, verdict, verdict.user, index, hold_warning_s)
    yield from _find_ended_holds(drifts, index)


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
    name: ContainerName, verdict: Holds, user: UserName, index: BooksIndex, hold_warning_s: float
) -> Iterator[Notice]:
    """The notice of a stopped container whose hold ends soon, or is over and stays in force."""
    now = index.snapshot.now
    left_s = None if verdict.until is None else verdict.until - now.boot
    if verdict.why is VerdictReason.OVERDUE:
        # Decision 227: time does not end such a hold, so the notice names what does.
        reason = f"docker rm {name} frees it"
        kind, until = NoticeKind.HOLD_ENDED, None
    elif verdict.why is VerdictReason.HOLD and left_s is not None and left_s <= hold_warning_s:
        kind, until, reason = NoticeKind.HOLD_ENDING, Wall(now.wall + left_s), ""
    else:
        return
    yield Notice(
        kind=kind, user=user, subject=name, slots=verdict.slots, until=until, reason=reason
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
