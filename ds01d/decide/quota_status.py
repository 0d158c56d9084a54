"""What a user may have of the GPUs, has, and has left. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Final

from ds01d.decide.bookings import Records, count_bookings
from ds01d.decide.user_quota import measure_booked, weigh_by_books
from ds01d.model.books import AllocatorState, Record
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, UserName
from ds01d.model.quota import QuotaStatus, QuotaUnit
from ds01d.model.reservation import parse_reserved_name

ABSENT: Final = "absent"
"""The state in the published status of a container that does not exist."""


def find_quota_status(
    user: UserName,
    limits: Limits,
    state: AllocatorState,
    records: Records,
    published: Mapping[ContainerName, str],
) -> QuotaStatus:
    """The quota of a user. `published`: the states of containers in the published status."""
    quota = limits.find_gpu_quota(user)
    if quota is None:
        most = limits.find_quota(user)
        status = QuotaStatus(
            user=user,
            group=limits.find_group(user),
            priority=limits.find_priority(user),
            unit=QuotaUnit.SLOTS,
            limit=None if most is None else Fraction(most),
            used=Fraction(0),
            reserved=Fraction(0),
            source=limits.find_quota_source(user),
        )
    else:
        status = QuotaStatus(
            user=user,
            group=limits.find_group(user),
            priority=limits.find_priority(user),
            unit=QuotaUnit.GPUS,
            limit=quota.limit,
            used=Fraction(0),
            reserved=Fraction(0),
            slots_per_container=quota.slots_per_container,
            source=quota.limit_source,
        )
    measure = _measurer(status.unit, user, records)
    # As a difference: a slot that a container and a reservation share counts once.
    total, bound = measure(state), measure(_without_reservations(user, state, records, published))
    return replace(status, used=bound, reserved=total - bound)


def _measurer(
    unit: QuotaUnit, user: UserName, records: Records
) -> Callable[[AllocatorState], Fraction]:
    if unit is QuotaUnit.SLOTS:
        return lambda state: Fraction(count_bookings(user, state, records))
    return lambda state: Fraction(measure_booked(user, state, records, weigh_by_books))


def _without_reservations(
    user: UserName,
    state: AllocatorState,
    records: Records,
    published: Mapping[ContainerName, str],
) -> AllocatorState:
    """The state without what is booked for a user's containers that do not exist yet."""

    def is_reserved(name: ContainerName) -> bool:
        record = records.get(name)
        if not isinstance(record, Record) or record.user != user:
            return False
        # Whatever was allocated a moment ago is not published yet.
        state_word = published.get(name)
        return parse_reserved_name(name) is not None if state_word is None else state_word == ABSENT

    slots = {
        slot.id: replace(
            slot, containers=tuple(name for name in slot.containers if not is_reserved(name))
        )
        for slot in state.slots.values()
    }
    return replace(state, slots=slots)
