"""Bookings in two phases: reserved in the store of a fleet, then made in the books of this host.

For the worker's thread, which never waits for the store: what is reserved comes back as an answer
between two passes. Imported only where a fleet is configured.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Final, Literal

from ds01d.decide.fleet_books import list_own_bookings
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Rejected
from ds01d.model.fleet_drift import OwnBooking
from ds01d.model.primitives import BookingId, ContainerName, Unknown
from ds01d.reconcile import fleet_allocation
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.fleet_allocation import AllocationPlan, AllocationPlanner, OverPermit
from ds01d.reconcile.fleet_booking import Answer, Fenced, Reserved
from ds01d.reconcile.transactions import Transactions
from ds01d.service.dispatch import answer_call
from ds01d.service.fleet_ports import (
    BookingSteps,
    FleetReservations,
    MakeAllocator,
    PendingBooking,
)
from ds01d.service.rules import unavailable
from ds01d.service.varlink import VarlinkError
from ds01d.service.waiting import Waiter, WaitingQueue

MOST_ATTEMPTS: Final = 4
"""How often a booking is reserved again because other slots are free by then."""


class FleetBookings:
    """The bookings of one service that are being reserved."""

    def __init__(
        self,
        reservations: FleetReservations,
        transactions: Transactions,
        when_away: Literal["local", "refuse"],
    ) -> None:
        self.reservations, self._transactions = reservations, transactions
        self._when_away = when_away
        self._pending: dict[BookingId, PendingBooking] = {}

    @property
    def has_answers(self) -> bool:
        return self.reservations.has_answers

    def choose_allocator(self, permit: AllocationPlan | None) -> MakeAllocator:
        """The allocator of the next phase. `permit`: what the store allowed."""
        if permit is not None:
            return partial(_make_permitted, permit)
        # Without the store and by the limits of this host alone: in one phase, as without a fleet.
        if self.reservations.away and self._when_away == "local":
            return Allocator
        return AllocationPlanner

    def begin_reserving(
        self, allocator: Allocator, waiter: Waiter, *, is_waiting: bool, log_refusal: bool
    ) -> bool:
        """Reserve what the planner has planned; False if there is nothing to reserve.

        Raises `VarlinkError` while the store is away, if bookings are refused then.
        """
        if not isinstance(allocator, AllocationPlanner) or allocator.plan is None:
            return False
        if away := self.reservations.away:
            raise refuse_away(away)
        plan = allocator.plan
        self._require_alone(plan)
        # Its place is kept meanwhile: nobody behind it is tried before it.
        waiter.is_reserving, waiter.reserving_since = True, time.monotonic()
        self._pending[plan.entry.booking] = PendingBooking(
            plan=plan, waiter=waiter, is_waiting=is_waiting, log_refusal=log_refusal
        )
        request = waiter.request
        self.reservations.reserve_plan(plan, lambda: request.is_open)
        return True

    def _require_alone(self, plan: AllocationPlan) -> None:
        """Raise `VarlinkError` while another call has the same booking reserved."""
        # Two with one ID would be one entry: what one of them gives back is the other's.
        for other in self._pending.values():
            if plan.entry.booking == other.plan.entry.booking or (
                plan.entry.container == other.plan.entry.container
            ):
                name = plan.question.request.container
                raise unavailable(f"another call is booking for {name} right now: try again")

    def serve_answers(self, service: BookingSteps, queue: WaitingQueue) -> bool:
        """Book what was reserved; False if no answer has come."""
        answers = self.reservations.take_answers()
        for came in answers:
            pending = self._pending.pop(came.plan.entry.booking, None)
            # Decision 195: who is gone gets no booking any more, however far it had come.
            if pending is None or not pending.waiter.request.is_open:
                self.give_back(came.plan, came.answer)
            if pending is not None:
                pending.waiter.is_reserving = False
                self._serve_answer(service, queue, pending, came.answer)
        return bool(answers)

    def _serve_answer(
        self, service: BookingSteps, queue: WaitingQueue, pending: PendingBooking, answer: Answer
    ) -> None:
        # Asked before the attempt, which may take it out of the queue.
        waiter, is_queued = pending.waiter, pending.waiter in queue

        def attempt() -> object | None:
            return self.book_reserved(service, pending, answer)

        if waiter.request.is_open and is_queued:
            answer_call(waiter.request, partial(service.keep_place, waiter, attempt))
        elif waiter.request.is_open:
            answer_call(waiter.request, lambda _: attempt())
        if is_queued and not waiter.request.is_open:
            queue.remove_waiter(waiter)
        elif waiter.request.is_open and not waiter.is_reserving:
            if not is_queued:
                service.add_waiter(waiter)
            # What this host refuses keeps its place, as without a store.
            if not isinstance(answer, Reserved):
                queue.rest_waiter(waiter)

    def book_reserved(
        self, service: BookingSteps, pending: PendingBooking, answer: Answer
    ) -> object | None:
        """Book within what was reserved, and give it back if it is not booked.

        Gives the reply, None for none yet. Raises `Ds01Error`.
        """
        waiter, is_booked = pending.waiter, False
        try:
            if isinstance(answer, Rejected):
                service.note_rejection(pending, answer)
                return None
            reply = self._try_permitted(service, pending, self._choose_permit(pending, answer))
            is_booked = reply is not None
            return reply
        finally:
            if is_booked:
                self._note_booked(pending.plan, answer, waiter.container)
            elif not waiter.is_reserving:
                self.give_back(pending.plan, answer)

    def _try_permitted(
        self, service: BookingSteps, pending: PendingBooking, permit: AllocationPlan
    ) -> object | None:
        waiter = pending.waiter
        try:
            return service.try_allocation(
                waiter,
                is_waiting=pending.is_waiting,
                log_refusal=pending.log_refusal,
                permit=permit,
            )
        except OverPermit as error:
            waiter.attempts += 1
            if waiter.attempts >= MOST_ATTEMPTS:
                waiter.attempts = 0
                raise unavailable(f"the bookings here keep changing: {error}") from error
        # It has to be more. The former reservation first: both would be over the quota.
        self.reservations.withdraw_plan(pending.plan)
        return service.try_allocation(
            waiter, is_waiting=pending.is_waiting, log_refusal=pending.log_refusal
        )

    def _choose_permit(self, pending: PendingBooking, answer: Answer) -> AllocationPlan:
        """The plan as it may be booked now. Raises `VarlinkError` where it may not."""
        # Decision 318: with the ID of the reservation, which may have been made after all.
        if isinstance(answer, Unknown | Fenced):
            reason = answer.reason if isinstance(answer, Unknown) else "this host is fenced"
            if self._when_away == "refuse":
                raise refuse_away(reason)
            return pending.plan
        if not isinstance(answer, Reserved):
            raise unavailable(f"the store of the fleet: {getattr(answer, 'reason', answer)}")
        return replace(pending.plan, counted=answer.counted)

    def give_back(self, plan: AllocationPlan, answer: Answer) -> None:
        """It is not booked: withdraw what may have been reserved."""
        # Also after `Unknown`: the reservation may have been made, and its answer was lost.
        if isinstance(answer, Reserved | Unknown):
            self.reservations.withdraw_plan(plan)
        else:
            self.reservations.leave_plan(plan)

    def _note_booked(self, plan: AllocationPlan, answer: Answer, container: ContainerName) -> None:
        """It is booked: have the store say so."""
        local = self._find_own(container)
        # Nothing is certain enough to be confirmed: the next pass compares books and store.
        if local is None or not isinstance(answer, Reserved):
            self.reservations.leave_plan(plan)
        else:
            self.reservations.confirm_plan(plan, local)

    def _find_own(self, container: ContainerName) -> OwnBooking | None:
        # It is booked: whatever fails from here on is no failure of the booking.
        try:
            books = self._transactions.read_books(frozenset({container}))
        except Ds01Error:
            return None
        local = list_own_bookings(books.state, books.records).values()
        return next((booking for booking in local if booking.container == container), None)

    def fail_all(self, error: VarlinkError) -> None:
        """End the calls that are not in the queue; what was reserved is found by a later pass."""
        for pending in self._pending.values():
            pending.waiter.is_reserving = False
            if not pending.log_refusal:
                continue  # it is in the queue, and is tried again
            pending.waiter.request.fail(error)
        # Of what still comes back, `take_answers` of the next configuration knows nothing.
        self._pending = {}


def _make_permitted(permit: AllocationPlan, *args: object) -> Allocator:
    allocator = fleet_allocation.PermittedAllocator(*args)  # type: ignore[arg-type]
    allocator.permit = permit
    return allocator


def refuse_away(reason: str) -> VarlinkError:
    return unavailable(
        f"cannot reserve in the store of the fleet: {reason}; nothing is booked meanwhile"
        ' (fleet.when_away = "refuse")'
    )
