"""The thread that makes passes over what the store of a fleet has of this host.

It neither reads nor changes the books of this host: the daemon's worker shows what they are.
Imported only where a fleet is configured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from ds01d.daemon.fleet_log import FleetLog, log_fleet_failure
from ds01d.daemon.fleet_reservations import ReservationThread
from ds01d.daemon.fleet_schedule import CHANGED_AFTER_S, plan_next_pass
from ds01d.errors import Ds01Error
from ds01d.model.fleet_books import NodeId
from ds01d.model.fleet_drift import Membership, MembershipState, OwnBookings
from ds01d.model.limits import Limits
from ds01d.model.primitives import BookingId, Boot, ContainerName, Now, Source, Unknown
from ds01d.reconcile.fleet_member import FleetMember
from ds01d.reconcile.fleet_memory import FleetStore, HostFacts
from ds01d.reconcile.fleet_pass import FleetPass
from ds01d.reconcile.fleet_ports import FleetBook
from ds01d.reconcile.fleet_report import FleetReport, OwnView
from ds01d.service.fleet_calls import AdminJob, AnswerJob

# Three heartbeats for each lease: one that is late does not show the host as gone.
LEASE_S: Final = 30
ALIVE_EVERY_S: Final = 10.0
_JOIN_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetParts:
    """The adapters of a fleet. `close`: breaks the calls that are being made."""

    book: FleetBook
    store: FleetStore
    read_facts: Callable[[], HostFacts]
    close: Callable[[], None] = lambda: None


class FleetWorker:
    """`wake` has to make the daemon's worker look soon; any thread calls it."""

    def __init__(
        self,
        parts: FleetParts,
        *,
        settle_s: float,
        read_now: Callable[[], Now],
        read_limits: Callable[[], Limits | Unknown],
        read_summary: Callable[[], dict[str, object]],
        wake: Callable[[], None],
    ) -> None:
        self._parts, self._wake, self._read_now = parts, wake, read_now
        self._member = FleetMember(
            parts.book, parts.store, parts.read_facts, lambda: read_now().wall
        )
        unread = Unknown(source=Source.STATE, reason="no pass over this host was made yet")
        self._local = OwnView(bookings=unread)
        self.reservations = ReservationThread(
            parts.book,
            self._member,
            name_hosts=self._name_hosts,
            read_booked=self._read_booked,
            note_reserving=self._note_reserving,
            wake=wake,
            note_change=self._note_change,
        )
        self._pass = FleetPass(
            book=parts.book,
            member=self._member,
            settle_s=settle_s,
            read_now=read_now,
            read_own=lambda: self._local,
            in_flight=self.reservations.in_flight.list_bookings,
            hold_booking=self.reservations.in_flight.hold_booking,
            read_limits=read_limits,
            read_summary=read_summary,
        )
        self._log = FleetLog()
        self._changed = threading.Condition()
        self._is_stopping = self._has_changes = False
        self._earliest_pass = 0.0
        self._admin_jobs: list[tuple[AdminJob, AnswerJob]] = []
        self._thread = threading.Thread(
            target=self._make_passes, name="ds01d-fleet-pass", daemon=True
        )

    def start(self) -> None:
        self.reservations.start()
        self._thread.start()

    def close(self) -> None:
        """Stop; a call that is being made is broken, and what it did is found by the next start."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._member.is_retired = True
        self.reservations.stop()
        self._parts.close()
        self.reservations.join(_JOIN_S)
        self._thread.join(_JOIN_S)
        # Or who asked would wait for ever.
        for _, answer in self._take_admin_jobs():
            answer("", Ds01Error("ds01d stops, or has another configuration: ask again"))

    # --- for the worker's thread

    @property
    def membership(self) -> Membership:
        return self._member.membership

    @property
    def node(self) -> NodeId:
        return self._member.node

    @property
    def report(self) -> FleetReport | None:
        """What the last pass saw; None before the first."""
        return self._pass.last_report

    def set_own(
        self,
        bookings: OwnBookings | Unknown,
        *,
        released: frozenset[ContainerName] = frozenset(),
        sweep_began: Boot | None = None,
        frozen: str = "",
    ) -> None:
        """Show the books as they are now. `released`: the containers whose bookings ds01d took."""
        # Replaced as a whole: another thread reads it at any moment.
        before = self._local
        self._local = before.show_books(bookings, released, sweep_began, frozen)
        self.reservations.in_flight.note_shown()
        if self._local != before:
            self._note_change()

    def ask_admin_job(self, job: AdminJob, answer: AnswerJob) -> None:
        """Do what an admin asks for, some time, and call `answer` in the thread that did it."""
        with self._changed:
            self._admin_jobs.append((job, answer))
            self._changed.notify_all()

    def _note_reserving(self, booking: BookingId) -> None:
        self._local = self._local.forget_release(booking)

    def _note_change(self) -> None:
        with self._changed:
            self._has_changes = True
            self._changed.notify_all()

    def _read_booked(self) -> Collection[BookingId]:
        bookings = self._local.bookings
        return () if isinstance(bookings, Unknown) else bookings.keys()

    def _name_hosts(self) -> dict[NodeId, str]:
        report, identity = self._pass.last_report, self._member.identity
        names = {} if report is None else {host.node: host.host for host in report.hosts}
        return names if identity is None else {**names, identity.node: identity.host}

    # --- the thread of passes

    def _make_passes(self) -> None:
        self._try_step(self._member.load_early)
        next_alive = next_pass = 0.0
        while not self._is_stopping:
            self._serve_admin_jobs()
            now = time.monotonic()
            if now >= next_pass:
                report = self._try_pass()
                took_s = time.monotonic() - now
                self.reservations.has_joined.set()
                self._log.log_report(report, self._member.membership)
                self._wake()
                boot = self._read_now().boot
                earliest_s, wait_s = plan_next_pass(report, took_s, boot)
                self._earliest_pass = time.monotonic() + earliest_s
                next_pass = time.monotonic() + wait_s
            # For display alone: nothing follows from a lease that has run out.
            if time.monotonic() >= next_alive and self._member.membership.may_report:
                next_alive = time.monotonic() + ALIVE_EVERY_S
                self._try_step(partial(self._parts.book.keep_alive, LEASE_S))
            if self._wait_for_changes(min(next_pass, max(next_alive, now + CHANGED_AFTER_S))):
                next_pass = min(next_pass, self._earliest_pass)

    def _try_step(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - passes go on
            self._log.log_failure(error)

    def _wait_for_changes(self, until: float) -> bool:
        """Wait until then, or until there is something to do; whether something has changed."""
        with self._changed:
            if not (self._is_stopping or self._admin_jobs or self._has_changes):
                self._changed.wait(max(0.0, until - time.monotonic()))
            has_changes = self._has_changes
        if has_changes:
            # Not before the earliest pass, however many changes there are.
            time.sleep(max(0.0, min(0.2, self._earliest_pass - time.monotonic())))
        return has_changes

    def _try_pass(self) -> FleetReport | None:
        with self._changed:
            # Before the pass: what changes during it needs another one.
            self._has_changes = False
        try:
            return self._pass.run()
        except Exception as error:  # noqa: BLE001 - bookings and repairs of this host go on
            # A file that is damaged, or a full disk, is news once: the state says it all the time.
            if not isinstance(error, Ds01Error):
                self._log.log_failure(error)
            self._member.set_state(MembershipState.AWAY, f"a pass over the fleet failed: {error}")
            self._note_change()
            return None

    def _take_admin_jobs(self) -> list[tuple[AdminJob, AnswerJob]]:
        with self._changed:
            jobs, self._admin_jobs = self._admin_jobs, []
        return jobs

    def _serve_admin_jobs(self) -> None:
        # In this thread alone: who rejoins changes what a pass goes by.
        for job, answer in self._take_admin_jobs():
            try:
                done = job(self._member, self._parts.book)
            except Ds01Error as error:
                answer("", error)
            except Exception as error:  # noqa: BLE001 - its caller waits for an answer
                log_fleet_failure(error)
                answer("", Ds01Error(f"internal error: {error}"))
            else:
                answer(done, None)
            self._note_change()
