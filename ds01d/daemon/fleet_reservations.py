"""The thread that reserves in the store of a fleet, one booking after the other.

In the order in which they come: what came first has its place, as everywhere. Imported only where a
fleet is configured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Final

from ds01d.daemon.fleet_in_flight import PlansInFlight
from ds01d.daemon.fleet_log import log_fleet_failure
from ds01d.decide.fleet_books import make_entry
from ds01d.model.fleet_books import Conflict, ConflictKind, EntryPhase, NodeId
from ds01d.model.fleet_drift import MembershipState, OwnBooking
from ds01d.model.primitives import BookingId, Unknown
from ds01d.reconcile.fleet_allocation import AllocationPlan
from ds01d.reconcile.fleet_booking import (
    Answer,
    Fenced,
    FleetReserver,
    Reserved,
    Unsettled,
    away,
)
from ds01d.reconcile.fleet_member import FleetMember
from ds01d.reconcile.fleet_ports import FleetBook
from ds01d.service.fleet_ports import FleetAnswer

# As long as one call to the store may take: joining keeps no booking longer than a store that is
# away.
JOIN_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Job:
    """For the thread of bookings. `is_wanted`: to be reserved, if somebody still waits for it.

    `is_left`: nothing is to be written to the store. `local` None: what was reserved is given back.
    """

    plan: AllocationPlan
    is_wanted: Callable[[], bool] | None = None
    is_left: bool = False
    local: OwnBooking | None = None


class ReservationThread:
    """A `FleetReservations`. `wake`: there are answers; `note_change`: a pass has to look.

    `note_reserving`: called for each booking that is to be reserved, by who asks for it.
    `read_booked`: what is in the books of this host, as far as was shown. `has_joined`: set once it
    is known how this host stands to the store.
    """

    def __init__(
        self,
        book: FleetBook,
        member: FleetMember,
        *,
        name_hosts: Callable[[], dict[NodeId, str]],
        read_booked: Callable[[], Collection[BookingId]],
        note_reserving: Callable[[BookingId], None],
        wake: Callable[[], None],
        note_change: Callable[[], None],
    ) -> None:
        self._book, self._member = book, member
        self._name_hosts, self._read_booked = name_hosts, read_booked
        self._note_reserving = note_reserving
        self._wake, self._note_change = wake, note_change
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._answers: SimpleQueue[FleetAnswer] = SimpleQueue()
        self.in_flight = PlansInFlight(note_change)
        self.has_joined = threading.Event()
        self._joined_by = 0.0
        self._thread = threading.Thread(target=self._serve_jobs, name="ds01d-fleet", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Serve no more than what is being served."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    # --- for the daemon's worker

    @property
    def away(self) -> str:
        membership = self._member.membership
        # While it joins, a call may wait for that: it takes no longer than one with the store away.
        if membership.state in (MembershipState.MEMBER, MembershipState.JOINING):
            return ""
        return membership.reason or f"this host is {membership.state}"

    def reserve_plan(self, plan: AllocationPlan, is_wanted: Callable[[], bool]) -> None:
        self._note_reserving(plan.entry.booking)
        self._jobs.put(_Job(plan, is_wanted=is_wanted))

    def take_answers(self) -> list[FleetAnswer]:
        # As many as there are now: each that comes later wakes the worker again.
        return [self._answers.get_nowait() for _ in range(self._answers.qsize())]

    @property
    def has_answers(self) -> bool:
        return not self._answers.empty()

    def confirm_plan(self, plan: AllocationPlan, local: OwnBooking) -> None:
        self.in_flight.note_booked(plan, local.booking)
        self._jobs.put(_Job(plan, local=local))

    def withdraw_plan(self, plan: AllocationPlan) -> None:
        self._jobs.put(_Job(plan))

    def leave_plan(self, plan: AllocationPlan) -> None:
        # In its turn: a question that was asked before this booking was made counts it as in
        # flight, and would else take its entry for one that is left.
        self.in_flight.note_booked(plan, plan.entry.booking)
        self._jobs.put(_Job(plan, is_left=True))

    # --- its own thread

    def _serve_jobs(self) -> None:
        # In their order, by one thread: no withdrawal overtakes its reservation.
        for job in iter(self._jobs.get, None):
            self._serve_job(job)

    def _serve_job(self, job: _Job) -> None:
        if job.is_wanted is not None:
            try:
                # Decision 344: who calls and hangs up again and again delays nobody behind.
                wanted = job.is_wanted()
                answer = (
                    self._reserve_entry(job.plan)
                    if wanted
                    else Unsettled(reason="the caller hung up")
                )
            except Exception as error:  # noqa: BLE001 - its caller waits for an answer
                log_fleet_failure(error)
                answer = away(f"internal error: {error}")
            # Before the wake: the worker looks once for each.
            self._answers.put(FleetAnswer(plan=job.plan, answer=answer))
            self._wake()
            return
        try:
            # Away: each would wait for its deadline, and delay the bookings behind it.
            if not (self.away or job.is_left):
                self._report_outcome(job)
        except Exception as error:  # noqa: BLE001 - the next bookings need this thread
            log_fleet_failure(error)
        finally:
            # What could not be written now is seen by the next pass.
            self.in_flight.note_served(job.plan)

    def _reserve_entry(self, plan: AllocationPlan) -> Answer:
        # From the first call on, not for each: they come one after the other.
        self._joined_by = self._joined_by or time.monotonic() + JOIN_PATIENCE_S
        self.has_joined.wait(max(0.0, self._joined_by - time.monotonic()))
        membership = self._member.membership
        if not membership.may_reserve:
            return away(membership.reason or f"this host is {membership.state}")
        entry = replace(plan.entry, node=self._member.node)
        # Not before: of two calls at once the first would be refused because of the second.
        if not self.in_flight.add_plan(plan, entry):
            name = plan.question.request.container
            return Unsettled(reason=f"an earlier booking of {name} is being withdrawn: try again")
        reserver = FleetReserver(
            book=self._book,
            node=self._member.node,
            in_flight=self.in_flight.list_entries,
            read_booked=self._read_booked,
            host_names=self._name_hosts,
        )
        answer = reserver.try_reserve(plan.question, entry)
        if isinstance(answer, Unknown):
            self._set_away(answer.reason)
        elif isinstance(answer, Fenced) and not self._member.fence_host(answer.conflict.identity):
            self._note_change()
            answer = Unsettled(reason="this host has just renewed its identity there: try again")
        # After `Unknown` it may be reserved: in flight until the worker says what became of it.
        if not isinstance(answer, Reserved | Unknown):
            self.in_flight.note_served(plan)
        return answer

    def _report_outcome(self, job: _Job) -> None:
        """Say in the store what became of a reservation."""
        book, node = self._book, self._member.node
        entry = replace(job.plan.entry, node=node)
        answers: list[object] = []
        # First what there is, then what is not needed any more: never too little in between.
        if job.local is not None:
            answers.append(book.confirm_entry(make_entry(job.local, node, EntryPhase.HELD)))
        # Decision 317: what was reserved for a further slot is part of the other entry now.
        if job.local is None or job.local.booking != entry.booking:
            answers.append(book.withdraw_entry(entry))
        for answer in answers:
            if isinstance(answer, Unknown):
                self._set_away(answer.reason)
            elif isinstance(answer, Conflict) and answer.kind is ConflictKind.INCARNATION:
                self._member.fence_host(answer.identity)

    def _set_away(self, reason: str) -> None:
        self._member.set_state(MembershipState.AWAY, reason)
        self._note_change()
