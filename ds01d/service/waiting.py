"""Who waits for a slot: by priority, then first come. For the worker's thread alone.

Nothing of it is on disk: a caller who is gone waits no longer, and one whose ds01d is restarted
asks again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ds01d.model.allocation import Refusal
from ds01d.model.notice import SlotWish
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from ds01d.model.reservation import ReservingProcess
from ds01d.service.requests import PendingCall
from ds01d.service.varlink import VarlinkError

WORTH_WAITING: Final = frozenset(
    {
        Refusal.USER_AT_LIMIT,
        Refusal.AGGREGATE_GPU_QUOTA_EXCEEDED,
        Refusal.NO_GPU_AVAILABLE,
        Refusal.SLOT_TAKEN,
        Refusal.SLOT_RESERVED,
        Refusal.SLOT_IN_USE,
    }
)
"""Refusals that end by themselves, when others give something back."""


FLEET_RETRY_EVERY_S: Final = 5.0
"""Nothing shows that another host has given back what somebody waits for here."""
RETRY_EVERY_S: Final = 1.0
_LONGEST_REST_S: Final = 60.0


@dataclass(slots=True, kw_only=True)
class Waiter:
    """A call for a slot, which may have to wait. `reason`: why it has none yet.

    `has_failed`: the last attempt found out nothing. `is_reserving`: one is being made, in the
    store of a fleet, since `reserving_since`; `attempts`: how often that has to begin again.
    `rests_until`: the store gave it nothing, so it stands in nobody's way (monotonic seconds).

    `most`, `priority`: as the caller wants them; the limits may change while it waits.
    `reason_given`: the caller's, for the history. `process`: for which the slots are reserved.
    `notify`: the caller wants a notice where it is refused.
    """

    request: PendingCall
    user: UserName
    container: ContainerName
    slot: SlotId | None
    most: int | None
    priority: int | None
    another: bool
    count: int = 1
    profile: str | None = None
    reason_given: str = ""
    process: ReservingProcess | None = None
    notify: bool = False
    rank: int = 0  # the priority that counts in the queue
    reason: str = ""
    has_failed: bool = False
    is_reserving: bool = False
    attempts: int = 0
    reserving_since: float = 0.0
    rests_until: float = 0.0
    since: Wall = field(default_factory=lambda: Wall(time.time()))
    sent_place: object = field(default=None, repr=False)

    @property
    def wish(self) -> SlotWish:
        """What it asks for."""
        return SlotWish(user=self.user, slot=self.slot, count=self.count, profile=self.profile)


class WaitingQueue:
    """The waiting calls, in their order."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def add_waiter(self, waiter: Waiter) -> None:
        """Behind everybody of the same or a higher priority."""
        place = sum(1 for other in self._waiters if other.rank >= waiter.rank)
        self._waiters.insert(place, waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        self._waiters.remove(waiter)

    def rest_waiter(self, waiter: Waiter) -> None:
        """Pass it over for a while, after an answer of the store that gave it nothing."""
        # Decision 342: so long that everybody behind it gets an attempt before its next one.
        now = time.monotonic()
        turn_s = max(RETRY_EVERY_S, now - waiter.reserving_since)
        rest_s = max(FLEET_RETRY_EVERY_S, turn_s * len(self._waiters))
        waiter.rests_until = now + min(rest_s, _LONGEST_REST_S)

    def find_rest_end(self) -> float:
        """When the first of those who rest is to be tried again; inf without one."""
        return min(
            (waiter.rests_until for waiter in self._waiters if waiter.rests_until),
            default=math.inf,
        )

    def drop_closed(self) -> None:
        """Forget the calls whose peer is gone."""
        self._waiters = [waiter for waiter in self._waiters if waiter.request.is_open]

    def __contains__(self, waiter: object) -> bool:
        # By identity: two calls may ask for the same.
        return any(other is waiter for other in self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        """In order; the queue may be changed meanwhile."""
        return iter([*self._waiters])

    def send_places(self, next_hold_end: float | None) -> None:
        """Send each caller that takes several replies its place, if that has changed."""
        for position, waiter in enumerate(self._waiters, 1):
            place = {
                "position": position,
                "ahead": position - 1,
                "next_hold_end": next_hold_end,
                "reason": waiter.reason,
            }
            # Only what has changed: places are looked at after each pass and each booking.
            if waiter.request.call.more and place != waiter.sent_place:
                waiter.sent_place = place
                waiter.request.send_progress({"booking": None, "waiting": place})

    def fail_all(self, error: VarlinkError) -> None:
        """End every call with an error."""
        for waiter in self._waiters:
            waiter.request.fail(error)
        self._waiters = []
