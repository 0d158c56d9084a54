"""What bookings in two phases need of the service, and of what reserves for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ds01d.model.allocation import Rejected
from ds01d.model.fleet_drift import OwnBooking
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.fleet_allocation import AllocationPlan
from ds01d.reconcile.fleet_booking import Answer
from ds01d.service.requests import PendingCall
from ds01d.service.waiting import Waiter


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAnswer:
    """What became of a plan."""

    plan: AllocationPlan
    answer: Answer


class FleetReservations(Protocol):
    """Reserves in threads of its own. No call waits for the store."""

    @property
    def away(self) -> str:
        """Why nothing can be reserved now; "" if it can be tried."""

    def reserve_plan(self, plan: AllocationPlan, is_wanted: Callable[[], bool]) -> None:
        """Reserve some time; the answer is among those of `take_answers`.

        `is_wanted`: somebody still waits for it when its turn comes; for any thread.
        """

    def take_answers(self) -> list[FleetAnswer]:
        """The answers since the last call, in the order in which the plans came."""

    @property
    def has_answers(self) -> bool: ...

    def confirm_plan(self, plan: AllocationPlan, local: OwnBooking) -> None:
        """The booking was made: have the store say so, some time."""

    def withdraw_plan(self, plan: AllocationPlan) -> None:
        """The booking was not made: give back what was reserved, some time."""

    def leave_plan(self, plan: AllocationPlan) -> None:
        """Nobody knows what the store has of it: leave that to the next pass."""


MakeAllocator = Callable[..., Allocator]


class BookingSteps(Protocol):
    """What the service does with a waiter."""

    def try_allocation(
        self,
        waiter: Waiter,
        *,
        is_waiting: bool = True,
        log_refusal: bool = False,
        permit: AllocationPlan | None = None,
    ) -> object | None: ...

    def note_rejection(self, pending: PendingBooking, answer: Rejected) -> None: ...

    def keep_place(
        self, waiter: Waiter, attempt: Callable[[], object | None], request: PendingCall, /
    ) -> object | None:
        """Make an attempt for somebody in the queue, who stays there if that fails."""

    def add_waiter(self, waiter: Waiter) -> None: ...


@dataclass(slots=True, kw_only=True)
class PendingBooking:
    """A call whose booking is being reserved. `is_waiting`: it may be put into the queue."""

    plan: AllocationPlan
    waiter: Waiter
    is_waiting: bool
    log_refusal: bool
