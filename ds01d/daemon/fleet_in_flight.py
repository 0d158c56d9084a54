"""The plans that are reserved in the store of a fleet and are not over yet. For any thread.

A plan is over once the store has what became of it, and the books of this host were shown after it
was booked: in between they look as if its entry were a left one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ds01d.model.fleet_books import FleetEntry
from ds01d.model.primitives import BookingId
from ds01d.reconcile.fleet_allocation import AllocationPlan


@dataclass(slots=True, kw_only=True)
class _Flight:
    """`booked`: what it became, as far as the books that were shown are older; None: nothing.

    `is_served`: the store has what became of it, or that is left to the next pass.
    """

    # Kept, so that no other object gets the id() of the plan meanwhile.
    plan: AllocationPlan
    entry: FleetEntry
    booked: BookingId | None = None
    is_served: bool = False


class PlansInFlight:
    """`note_change`: a plan is over, so a pass has to look."""

    def __init__(self, note_change: Callable[[], None]) -> None:
        self._note_change = note_change
        self._lock = threading.Lock()
        # By id(): two plans may be equal, and only one of them is left or given back.
        self._flights: dict[int, _Flight] = {}
        self._in_repair: BookingId | None = None

    def add_plan(self, plan: AllocationPlan, entry: FleetEntry) -> bool:
        """Take it in; False while a pass changes an entry of the same ID."""
        with self._lock:
            if entry.booking == self._in_repair:
                return False
            self._flights[id(plan)] = _Flight(plan=plan, entry=entry)
        return True

    def note_booked(self, plan: AllocationPlan, booking: BookingId) -> None:
        """It is in the books. For the thread that shows them."""
        with self._lock:
            if (flight := self._flights.get(id(plan))) is not None:
                flight.booked = booking

    def note_served(self, plan: AllocationPlan) -> None:
        """Nothing is written to the store for it any more."""
        with self._lock:
            flight = self._flights.get(id(plan))
            if flight is not None:
                flight.is_served = True
            self._remove_ended()
        self._note_change()

    def note_shown(self) -> None:
        """The books were read and shown. For the thread that books."""
        with self._lock:
            for flight in self._flights.values():
                flight.booked = None
            has_ended = self._remove_ended()
        if has_ended:
            self._note_change()

    def _remove_ended(self) -> bool:
        before = len(self._flights)
        self._flights = {
            key: flight
            for key, flight in self._flights.items()
            if flight.booked is not None or not flight.is_served
        }
        return len(self._flights) < before

    def list_entries(self) -> list[FleetEntry]:
        """What is reserved, or is about to be, and may count for nobody by the books yet."""
        # One that was served was booked before the next question was asked, which has it by the
        # books: counted here as well it would be there twice.
        with self._lock:
            return [flight.entry for flight in self._flights.values() if not flight.is_served]

    def list_bookings(self) -> list[BookingId]:
        """The bookings of which passes leave the entries alone."""
        with self._lock:
            flights = [*self._flights.values()]
        booked = [flight.booked for flight in flights if flight.booked is not None]
        # A further slot is reserved under an ID of its own, and becomes part of another entry.
        return list(dict.fromkeys([*(flight.entry.booking for flight in flights), *booked]))

    @contextmanager
    def hold_booking(self, booking: BookingId) -> Iterator[None]:
        """Keep plans with this ID away while a pass looks at its entry and changes it."""
        with self._lock:
            self._in_repair = booking
        try:
            yield
        finally:
            with self._lock:
                self._in_repair = None
