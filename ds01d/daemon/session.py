"""What the daemon makes from one configuration; a reload replaces all of it at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from ds01d.config import Config
from ds01d.daemon.accounting import Accounting
from ds01d.daemon.books_watch import BooksWatch
from ds01d.daemon.event_log import EventLog, ObservedEvent
from ds01d.daemon.notices import Notices
from ds01d.daemon.process_watch import ProcessWatch
from ds01d.daemon.sample_prefetch import SamplePrefetch
from ds01d.daemon.session_parts import SessionParts
from ds01d.daemon.status_builder import StatusBuilder
from ds01d.daemon.wakeups import Wakeups
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.primitives import Boot, ContainerName, UserName, Wall
from ds01d.model.usage import PublishedUse
from ds01d.reconcile.docker_books import with_current_books
from ds01d.reconcile.ports import World
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from ds01d.reporting.published_status import build_use
from ds01d.reporting.status import Status
from ds01d.service.activity_calls import ActivityCalls
from ds01d.service.booking import BookingService
from ds01d.service.free_notices import FreeNotices
from ds01d.service.notice_calls import NoticeCalls
from ds01d.service.notice_requests import NoticeRequests
from ds01d.service.operations_calls import OperationCalls
from ds01d.service.quota_calls import QuotaCalls
from ds01d.service.reconciling import ReconcileCalls
from ds01d.service.status_calls import StatusCalls
from ds01d.service.view_calls import ViewCalls, ViewContext
from ds01d.service.waiting import WaitingQueue

if TYPE_CHECKING:  # off unless configured, and then not imported
    from ds01d.daemon.fleet_session import FleetSession

PERSIST_EVERY_S: Final = 60.0
# Decision 59: a pass is bounded, so that a release that falls due waits a fraction of a second.
MAX_RECORDS_PER_PASS: Final = 100
"""Metadata files that one pass writes at most, where nothing but metadata changes."""


class _OwnUse:
    """What the status has of the use of devices, for bookings in this process."""

    def __init__(self, status_builder: StatusBuilder) -> None:
        self._status_builder = status_builder

    def read_use(self) -> PublishedUse:
        return build_use(self._status_builder.status)


class Session:
    """The reconciler of one configuration and what surrounds it. For the worker's thread.

    `parts.close` and `on_event` may be called from other threads.
    """

    def __init__(
        self,
        config: Config,
        parts: SessionParts,
        read_status: Callable[[Session], Status],
        waiting: WaitingQueue,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake`: makes the worker look soon, from any thread."""
        self.config, self.parts = config, parts
        self._clock = parts.world.clock
        self.events = EventLog(
            parts.operations, self.read_wall, self.read_boot, parts.world.passwd.find_logins
        )
        # Decision 120: ds01d's own lines go through the events, so that they come after their
        # causes.
        world = replace(parts.world, operations=self.events)
        self.reconciler = Reconciler(world, config, most_records=MAX_RECORDS_PER_PASS)
        self.status_builder = StatusBuilder(config)
        current = with_current_books(world, config, self.reconciler.checkpoints)
        # What is published is in this process: no file has to be read for a booking.
        booking_world = replace(current, published=_OwnUse(self.status_builder))
        self.notices = Notices(parts.notices, config.notify.hold_warnings_s, self._clock.now)
        requests = None
        if parts.notice_files is not None:
            requests = NoticeRequests(parts.notice_files, self.read_wall)
        self.free_notices = FreeNotices(config, booking_world, requests, self.notices.add_notice)
        self.fleet = self._open_fleet(booking_world, wake)
        self.bookings = BookingService(
            config,
            booking_world,
            lambda: read_status(self),
            waiting,
            self._notice_answer,
            notice_requests=requests,
            fleet=None if self.fleet is None else self.fleet.bookings,
        )
        elsewhere = None if self.fleet is None else self.fleet.find_use_elsewhere
        self.quotas = QuotaCalls(booking_world, lambda: read_status(self), waiting, elsewhere)
        self.reconciles = ReconcileCalls(config, self._clock)
        self.operations = OperationCalls(
            config, world, lambda _: (self.status_builder.status, ""), self.reconciles
        )
        activities = ActivityCalls(waiting, parts.read_log)
        self.status_calls = StatusCalls(lambda: read_status(self))
        views = ViewCalls(partial(self._find_view_context, current), parts.views, parts.file)
        self.handlers = {
            **self.bookings.handlers,
            **self.quotas.handlers,
            **self.operations.handlers,
            **self.status_calls.handlers,
            **activities.handlers,
            **NoticeCalls(parts.read_notices, requests).handlers,
            **views.handlers,
            **({} if self.fleet is None else self.fleet.handlers),
        }
        self.sample_prefetch = SamplePrefetch(world.gpu, config.policy.settle_s, self.read_boot)
        self.books_watch = BooksWatch(config.books.state, current.state.read, self.read_boot)
        self.process_watch = ProcessWatch(world.reserving.find_states)
        self.wakeups = Wakeups()
        self._accounting = None
        if parts.accounting is not None:
            self._accounting = Accounting(parts.accounting, world.state_dir, config)
        self._persisted_at = 0.0
        self._is_gc_frozen = False
        # Calls are served from the first pass on: it shows what runs.
        self.is_ready = False

    def _find_view_context(self, world: World, user: UserName) -> ViewContext:
        return ViewContext(
            config=self.config,
            world=world,
            checkpoints=self.reconciler.checkpoints,
            status=self.status_builder.status,
            user=user,
        )

    def _open_fleet(self, world: World, wake: Callable[[], None]) -> FleetSession | None:
        # Invariant 15: observing writes nothing but its own status, and books nothing either.
        if self.parts.fleet is None or self.config.daemon.mode == "observe":
            return None
        from ds01d.daemon.fleet_session import FleetSession  # noqa: PLC0415 - off unless configured

        return FleetSession(
            self.parts.fleet, self.config, world, lambda: self.status_builder.status, wake
        )

    def read_wall(self) -> Wall:
        return self._clock.now().wall

    def read_boot(self) -> Boot:
        return self._clock.read_boot()

    def _notice_answer(self, answer: Allocated | Rejected, *, has_waited: bool) -> None:
        self.notices.add_answer(answer, self.quotas.find_quota, has_waited=has_waited)

    def wait_s(self) -> float:
        """How long the worker may wait before one of these parts has something to do."""
        parts = (
            self.sample_prefetch,
            self.events,
            self.process_watch,
            self.bookings,
            self.reconciles,
            self.free_notices,
        )
        return min(part.wait_s() for part in parts)

    def fail_calls(self, reason: str) -> None:
        """End the calls that this session would still answer, but for those who wait for a slot."""
        self.bookings.fail_reserving(reason)
        self.reconciles.fail_all(reason)
        self.status_calls.fail_all(reason)

    def on_event(self, event: ObservedEvent) -> None:
        """Log an event of Docker. In mode observe the operations log is not written."""
        # Invariant 15: observing writes nothing but its own status.
        if self.config.daemon.mode != "observe":
            self.events.on_event(event)

    def add_missing_events(self, report: Report) -> str:
        """Log what the containers of a sweep show and no event did; the failure, or ""."""
        if self.config.daemon.mode == "observe":
            return ""
        return self.events.add_missing_lines(report, self.config.policy.absence_grace_s)

    def persist_if_due(self) -> str:
        """Save caches and accounting once a minute; the failure, or ""."""
        if time.monotonic() - self._persisted_at <= PERSIST_EVERY_S:
            return ""
        # Also if it fails: a full disk must not be tried in every turn.
        self._persisted_at = time.monotonic()
        return self.persist()

    def persist(self) -> str:
        """Save caches and accounting; the failure, or ""."""
        try:
            self.parts.persist()
        except Ds01Error as error:
            return str(error)
        return "" if self._accounting is None else self._accounting.save(self._clock.now())

    def show_fleet(self, report: Report) -> None:
        """Show the threads of the fleet what a pass saw and did."""
        if self.fleet is not None:
            self.fleet.add_report(report)

    def update_fleet(self, changed: frozenset[ContainerName]) -> None:
        """Show the fleet what bookings changed, and the status how this host stands."""
        if self.fleet is None:
            return
        self.fleet.start()  # passes are made by now
        if changed:
            self.fleet.add_changes(changed)
        self.status_builder.add_fleet(self.fleet.find_status(), self.fleet.find_source())

    def record_pass(self, report: Report) -> str:
        """Take over into the accounting what a pass saw and did; the failure, or ""."""
        return "" if self._accounting is None else self._accounting.record_pass(report)

    def close(self) -> None:
        """Close the adapters; what is to be saved is saved before, by `persist`."""
        if self.fleet is not None:
            self.fleet.close()
        self.parts.close()
        if self._accounting is not None:
            self._accounting.close()

    def freeze_gc(self) -> None:
        """Exclude the objects that exist now from garbage collection; once, after a sweep."""
        # A full collection takes 35 ms with 1,000 containers and 165 ms with 10,000, perhaps just
        # when a release is due; afterwards 1 and 17 ms. Reference counting still frees the frozen
        # objects; only cycles among them stay until the next reload.
        if not self._is_gc_frozen:
            self._is_gc_frozen = True
            gc.unfreeze()
            gc.collect()
            gc.freeze()
