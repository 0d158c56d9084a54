"""How much a user holds, and whether the limits give more. Pure.

In slots, or in GPU-equivalents: a whole GPU is 1, a MIG device as many sevenths as its profile has
compute slices. Exact fractions: sevenths as floats add up to a little more or less than one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Final, Protocol

from ds01d.decide.bookings import (
    Records,
    count_bookings,
    describe_charged,
    list_charged_slots,
)
from ds01d.model.allocation import AllocationRequest, Refusal, Rejected
from ds01d.model.books import AllocatorState, Slot, SlotType
from ds01d.model.primitives import UserName

Weigh = Callable[[Slot], Fraction]

_WHOLE: Final = Fraction(1)
_LEAST: Final = Fraction(1, 7)  # the smallest MIG device
# A quota of sevenths is written with as many digits as somebody cares to.
_TOLERANCE: Final = Fraction(1, 10**9)
_SLICES: Final = re.compile(r"([1-7])[gc]\b")


class TypedSlot(Protocol):
    """A slot of the books, or of the status."""

    @property
    def type(self) -> SlotType: ...


def weigh_slot(slot: TypedSlot, profile: str | None, unknown: Fraction = _WHOLE) -> Fraction:
    """The GPU-equivalents of a slot; `unknown`: of a MIG device without a valid profile."""
    if slot.type is not SlotType.MIG:
        return _WHOLE
    # Decision 224: rather too much than nothing, where nobody knows.
    gpus = weigh_profile(profile)
    return unknown if gpus is None else gpus


def weigh_profile(profile: str | None) -> Fraction | None:
    """The GPU-equivalents of a MIG device of this profile; None: that is no valid one."""
    slices = _SLICES.match(profile or "")
    return None if slices is None else int(slices[1]) * _LEAST


def weigh_by_books(slot: Slot) -> Fraction:
    """The GPU-equivalents of a slot by its profile in the books."""
    return weigh_slot(slot, slot.profile)


def measure_booked(
    user: UserName, state: AllocatorState, records: Records, weigh: Weigh
) -> Fraction:
    """What a user holds: each of their slots once, however many of their containers it lists."""
    return sum(map(weigh, list_charged_slots(user, state, records)), Fraction(0))


def check_limits(
    request: AllocationRequest, state: AllocatorState, records: Records, weigh: Weigh | None = None
) -> Rejected | None:
    """The refusal of a user who may have no more, whatever slots are free; None if they may.

    `weigh`: the GPU-equivalents of a slot; None: as far as the
    books know, and rather too little.
    """
    rejection = _find_rejection(request, state, records, weigh)
    # What a user has elsewhere does not explain the limit of a single container.
    if rejection is None or rejection.refusal is Refusal.EXCEEDS_CONTAINER_LIMIT:
        return rejection
    return replace(rejection, holdings=describe_charged(request.user, state, records))


def _find_rejection(
    request: AllocationRequest, state: AllocatorState, records: Records, weigh: Weigh | None
) -> Rejected | None:
    count, most = request.count, request.max_slots
    if most is not None:
        booked = count_bookings(request.user, state, records)
        if booked + count > most:
            detail = _describe_limit(str(booked), str(most), count)
            # Decision 211, as for GPU-equivalents below.
            is_lasting = count > most
            rejection = make_rejection(request, Refusal.USER_AT_LIMIT, detail)
            return replace(rejection, is_lasting=is_lasting)
    if request.quota is None:
        return None
    if (most := request.quota.slots_per_container) is not None:
        asked = count + len(state.find_slots(request.container))
        if asked > most:
            return make_rejection(request, Refusal.EXCEEDS_CONTAINER_LIMIT, f"{asked}>{most}")
    weigh = weigh or _weigh_at_least
    booked_gpus = measure_booked(request.user, state, records, weigh)
    # No slot is chosen yet: refused here is only who could not even have the lightest ones.
    lightest = min((weigh(slot) for slot in state.slots.values()), default=Fraction(0))
    return check_gpu_quota(request, booked_gpus, lightest * count)


def check_gpu_quota(
    request: AllocationRequest, booked_gpus: Fraction, asked: Fraction
) -> Rejected | None:
    """The refusal of `asked` more GPU-equivalents; None if the user may have them."""
    quota = request.quota
    if quota is None:
        return None
    for limit, refusal in (
        (quota.aggregate, Refusal.AGGREGATE_GPU_QUOTA_EXCEEDED),
        (quota.gpus, Refusal.USER_AT_LIMIT),
    ):
        if limit is not None and booked_gpus + asked > limit + _TOLERANCE:
            detail = (
                f"{_describe(booked_gpus)}+{_describe(asked)}>{_describe(limit)}"
                if refusal is Refusal.AGGREGATE_GPU_QUOTA_EXCEEDED
                else _describe_limit(_describe(booked_gpus), _describe(limit), request.count)
            )
            # Decision 211: nobody waits for more than could ever fit.
            is_lasting = asked > limit + _TOLERANCE
            return replace(make_rejection(request, refusal, detail), is_lasting=is_lasting)
    return None


def make_rejection(request: AllocationRequest, refusal: Refusal, detail: str) -> Rejected:
    return Rejected(container=request.container, user=request.user, refusal=refusal, detail=detail)


def _describe_limit(booked_gpus: str, limit: str, count: int) -> str:
    return f"{booked_gpus}/{limit}" + (f", {count} more asked for" if count > 1 else "")


def _weigh_at_least(slot: Slot) -> Fraction:
    return weigh_slot(slot, slot.profile, _LEAST)


def _describe(amount: Fraction) -> str:
    return f"{float(amount):g}"
