"""Books in two steps, for a host that reserves in the store of a fleet first.

`AllocationPlanner` finds out what would be booked and writes nothing; `PermittedAllocator` books,
within what was reserved. No call in here goes over the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ds01d.decide.bookings import Bookings
from ds01d.decide.fleet_books import QuotaQuestion, count_unowned, list_own_bookings, sum_own_use
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, AllocationRequest, Rejected
from ds01d.model.books import Record
from ds01d.model.fleet_books import EntryPhase, FleetEntry, NodeId, exceeds_use
from ds01d.model.fleet_drift import OwnBookings
from ds01d.model.limits import Limits
from ds01d.model.primitives import BookingId, ContainerName, Unknown
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.booking_ids import choose_booking_id, reserve_name


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationPlan:
    """What is to be reserved before a booking is made. `node` of `entry` is filled in later.

    `is_part`: more slots for a container that has an entry of its own already. `counted`: once it
    is reserved, the slots and sevenths of its user that were counted for this host; None: none
    were, as the store did not answer.
    """

    question: QuotaQuestion
    entry: FleetEntry
    is_part: bool
    counted: tuple[int, int] | None = None


class AllocationPlanner(Allocator):
    """Answers as the allocator, but what it would book is in `plan`, and is not written."""

    plan: AllocationPlan | None = None

    def _write_allocation(
        self,
        answer: Allocated,
        wish: AllocationRequest,
        books: Bookings,
        reason: str,  # noqa: ARG002 - written by the allocator that books
    ) -> Allocated:
        local = list_own_bookings(books.state, books.records)
        after = _list_after(answer, wish, books)
        count, sevenths = _measure_use(wish, after)
        # What the container has counts by its own entry already: what is added is reserved.
        before_count, before_sevenths = _measure_use(wish, local)
        is_part = before_count > 0
        # Decision 317: its name is taken by the entry that it has; what is added is reserved under
        # a name and an ID of its own, and joined to that entry afterwards.
        name = reserve_name(None) if is_part else wish.container
        self.plan = AllocationPlan(
            question=QuotaQuestion(
                request=wish,
                sevenths=sevenths - before_sevenths,
                local=local,
                unowned=count_unowned(wish.user, books.state, books.records),
            ),
            entry=FleetEntry(
                user=wish.user,
                node=NodeId(""),
                booking=choose_booking_id(name, books.records),
                container=name,
                phase=EntryPhase.RESERVED,
                count=count - before_count,
                sevenths=sevenths - before_sevenths,
                since=self._world.clock.now().wall,
            ),
            is_part=is_part,
        )
        return answer

    def _log_answer(
        self,
        answer: Allocated | Rejected,
        priority: int,
        limits: Limits | Unknown,
        asked_for: str = "",
    ) -> Allocated | Rejected:
        # What is only planned is no answer yet, and is logged when it is booked.
        if self.plan is not None:
            return answer
        return super()._log_answer(answer, priority, limits, asked_for)


class PermittedAllocator(Allocator):
    """Books what was reserved as `permit`, and nothing that counts more."""

    permit: AllocationPlan | None = None

    def _choose_id(self, container: ContainerName, books: Bookings) -> BookingId:
        permit = self.permit
        if permit is None or permit.is_part:
            return super()._choose_id(container, books)
        return permit.entry.booking

    def _write_allocation(
        self, answer: Allocated, wish: AllocationRequest, books: Bookings, reason: str
    ) -> Allocated:
        if self.permit is not None:
            local = list_own_bookings(books.state, books.records)
            after = _list_after(answer, wish, books)
            count, sevenths = _measure_use(wish, after)
            before_count, before_sevenths = _measure_use(wish, local)
            reserved = self.permit.entry.use
            asked = (count - before_count, sevenths - before_sevenths)
            # Less than reserved is no harm: the confirmation says how much it is.
            if exceeds_use(asked, reserved):
                raise OverPermit("to be booked", asked, reserved)
            # Decision 350: what was booked here meanwhile without the store, or by others, is not
            # in its answer.
            slots, weight = sum_own_use(b for b in local.values() if b.user == wish.user)
            booked = (slots + count_unowned(wish.user, books.state, books.records), weight)
            counted = self.permit.counted or booked
            if exceeds_use(booked, counted):
                raise OverPermit(f"booked by {wish.user}", booked, counted)
        return super()._write_allocation(answer, wish, books, reason)


class OverPermit(Ds01Error):
    """More than the store has allowed, by slots or by GPUs: it has to be reserved again."""

    def __init__(self, subject: str, asked: tuple[int, int], allowed: tuple[int, int]) -> None:
        super().__init__(
            f"{asked[0]} slots with {asked[1]} sevenths of a GPU are {subject}, and"
            f" {allowed[0]} with {allowed[1]} are reserved"
        )


def _list_after(answer: Allocated, wish: AllocationRequest, books: Bookings) -> OwnBookings:
    """The bookings of this host as they would be."""
    after = books.state
    for given in answer.all_slots:
        after = replace(books, state=after).with_booking(wish.container, given.slot, wish.user)
    old = books.records.get(wish.container)
    record = old if isinstance(old, Record) else _NEW_RECORD
    # Whom a booking counts for is known by its record, which is written with it.
    record = replace(record, container=wish.container, user=wish.user)
    return list_own_bookings(after, {**books.records, wish.container: record})


_NEW_RECORD = Record(container=ContainerName(""), user=None, gpu_id=None)


def _measure_use(wish: AllocationRequest, local: OwnBookings) -> tuple[int, int]:
    """Slots and sevenths of the container of a request."""
    mine = [booking for booking in local.values() if booking.container == wish.container]
    return sum_own_use(mine)
