"""The worker: one thread that makes passes over whatever is dirty, and serves calls between them.

Decides when, never what. It reads `stop`, `reload` and `dump` as flags, between two passes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Final

import structlog

from ds01d.config import Config
from ds01d.daemon.dirty_set import EVERYTHING, DirtySet, Work
from ds01d.daemon.event_log import ObservedEvent
from ds01d.daemon.pass_metrics import PassMetrics
from ds01d.daemon.publisher import PUBLISH_EVERY_S, StatusPublisher
from ds01d.daemon.report_log import ReportLogger
from ds01d.daemon.session import OpenParts, Session
from ds01d.daemon.systemd import Supervisor, max_pass_s
from ds01d.daemon.timers import Timers
from ds01d.errors import Ds01Error, WriteFailed
from ds01d.model.primitives import Boot, ContainerName
from ds01d.reconcile.report import Report
from ds01d.reporting import logs
from ds01d.reporting.message_ids import Event
from ds01d.service.client import STOPPING
from ds01d.service.dispatch import serve_call
from ds01d.service.rules import unavailable
from ds01d.service.service import Service
from ds01d.service.waiting import WaitingQueue

_PUBLISH: Final = "publish"
_DUE: Final = "due"
_CALLS_S: Final = 1.0  # calls are served at most this long between two passes


class Worker:
    """Holds the session of the current configuration. `service`: None without booking service."""

    def __init__(
        self,
        open_parts: OpenParts,
        dirty: DirtySet,
        timers: Timers,
        supervisor: Supervisor,
        service: Service | None,
    ) -> None:
        self._open_parts, self._dirty, self._timers = open_parts, dirty, timers
        self._supervisor, self._service = supervisor, service
        self._waiting = WaitingQueue()
        self._log = structlog.get_logger()
        self._stopping = threading.Event()
        self._session: Session | None = None
        self._next_config: Config | None = None
        self._dump_requested = threading.Event()
        self._report_log = ReportLogger()
        self._metrics = PassMetrics(dirty.counters)
        self._publisher = StatusPublisher(timers, self._metrics)

    # --- called by the main thread

    def reload(self, config: Config) -> None:
        """Replace the session after the pass that is being made."""
        self._next_config = config

    def request_dump(self) -> None:
        self._dump_requested.set()
        self._dirty.wake()

    def stop(self) -> None:
        self._stopping.set()
        if self._service is not None:
            self._service.reject(STOPPING)
        self._dirty.close()
        if self._session is not None:
            self._session.parts.close()  # breaks whatever call the worker waits for

    # --- called by the thread of the event stream

    def _on_change(self, names: frozenset[ContainerName] | None) -> None:
        self._metrics.on_events(names or frozenset())
        self._dirty.mark(EVERYTHING if names is None else names)

    def _on_event(self, event: ObservedEvent) -> None:
        if self._session is not None:
            self._session.on_event(event)

    # --- the worker's own thread

    def run(self, config: Config) -> None:
        try:
            session = self._open_session(config)
            while not self._stopping.is_set():
                self._supervisor.mark_progress()
                session = self._apply_reload(session)
                self._run_once(session)
        except Exception as error:  # noqa: BLE001 - the worker must log why it ends
            self._log.error(Event.DAEMON_FAILED, reason=str(error), exc_info=True)
        finally:
            if self._session is not None:
                self._write_events(self._session, at_once=True)
                self._session.fail_calls(STOPPING)
                self._log_failure(self._session, self._session.persist())
                self._session.parts.close()
            self._waiting.fail_all(unavailable(STOPPING))
            if self._service is not None:
                self._service.close()
            self._metrics.close()
            self._supervisor.mark_worker_ended()

    def _open_session(self, config: Config) -> Session:
        return self._start_session(
            Session(
                config,
                self._open_parts(config, self._on_change, self._on_event),
                self._publisher.build_status,
                self._waiting,
            )
        )

    def _start_session(self, session: Session) -> Session:
        self._session, daemon = session, session.config.daemon
        self._metrics.apply_config(session.config, session.parts.stream)
        if self._service is not None:
            self._service.apply_config(session.config)
        for problem in session.parts.take_over_books():
            self._log.warning(Event.CONFIG_RISK, reason=problem)
        session.parts.start()
        self._timers.schedule_sweeps(
            daemon.sweep_interval_s, daemon.sweep_jitter_s, daemon.sweep_cron
        )
        self._dirty.mark(EVERYTHING)
        return session

    def _apply_reload(self, session: Session) -> Session:
        """The session of the configuration that a reload read; the same one without a change."""
        if self._next_config is None:
            return session
        # Cleared before it is applied: SIGHUP may set the next one at any moment.
        config, self._next_config = self._next_config, None
        # SIGHUP is also "sweep now": without a change the adapters and their caches stay.
        if config == session.config:
            return session
        try:
            parts = self._open_parts(config, self._on_change, self._on_event)
        except Ds01Error as error:
            self._log.error(Event.CONFIG_REFUSED, reason=str(error))
            return session
        self._write_events(session, at_once=True)
        session.fail_calls("the configuration of ds01d was reloaded")
        session.parts.close()
        logs.setup_logging(level=config.logs.level)
        self._supervisor.patience_s = max_pass_s(config)
        return self._start_session(
            Session(config, parts, self._publisher.build_status, self._waiting)
        )

    def _run_once(self, session: Session) -> None:
        """One turn of the loop: wait for work, do it, publish the result."""
        session.sample_prefetch.start_if_due()
        self._mark_changed_bookings(session)
        wait_s = min(self._timers.wait_s(), session.wait_s())
        is_called = session.is_ready and self._service is not None and self._service.has_requests
        work = self._dirty.take(0.0 if is_called else wait_s)
        self._timers.fire_due()
        if work is None:
            work = self._dirty.take(0.0)  # what a timer marked just now
        self._supervisor.mark_progress()
        self._write_events(session)
        if work is not None:
            self._run_pass(session, work)
            session.is_ready = True
            session.bookings.note_change()
        if session.is_ready:
            self._serve_calls(session)
        self._write_events(session)
        if self._dump_requested.is_set():
            self._dump_requested.clear()
            self._dump_status(session)
        if session.status_builder.has_changes and self._publisher.may_publish():
            self._publish_status(session, sweep=False)
        session.status_calls.send_if_due()

    def _serve_calls(self, session: Session) -> None:
        """Serve calls of the booking service; what they changed is looked at by the next pass."""
        if self._service is None:
            return
        session.bookings.serve_waiting_if_due()
        # Bounded, so that callers without an end keep no pass waiting.
        until = time.monotonic() + _CALLS_S
        for request in iter(self._service.take_request, None):
            self._supervisor.mark_progress()
            serve_call(request, session.handlers)
            if time.monotonic() >= until:
                break
        names = session.bookings.take_changed_names()
        if names:
            self._dirty.mark(names)
        if session.operations.take_changes() or not session.reconciles.wait_s():
            self._dirty.mark(EVERYTHING)

    def _mark_changed_bookings(self, session: Session) -> None:
        """Mark the containers that another writer has booked or released since the last look."""
        # While a pass is not published yet, its own changes would look like another writer's.
        if self._publisher.is_ready and not session.status_builder.has_changes:
            names = session.books_watch.find_changes(session.status_builder.list_bookings)
            if names:
                self._dirty.mark(names)

    def _write_events(self, session: Session, *, at_once: bool = False) -> None:
        """Write the lines of events that no wrapper logged; `at_once`: also those not due yet."""
        self._log_failure(session, session.events.write_due(at_once=at_once))

    def _run_pass(self, session: Session, work: Work) -> None:
        if not work.everything and not work.names:
            self._dirty.mark_done(work)
            return
        began = time.monotonic()
        try:
            if work.everything:
                report = session.reconciles.begin_sweep(session.reconciler).run()
            else:
                report = session.reconciler.run(work.names)
        except Exception as error:  # noqa: BLE001 - the one place where a pass may fail as a whole
            expected = isinstance(error, Ds01Error)
            if expected and self._stopping.is_set():
                return
            self._report_log.log_failed_pass(error, session.read_boot(), expected=expected)
            self._metrics.count_failed_pass(work, time.monotonic() - began, panic=not expected)
            self._dirty.retry_all()
            if work.everything:
                session.reconciles.fail_sweep(str(error) or type(error).__name__)
            session.status_builder.add_failed_pass(
                str(error) or type(error).__name__, session.read_wall()
            )
            self._publish_status(session, sweep=False)
            _require_state_dir(session)
            return
        if self._stopping.is_set():
            # `stop` closed the adapters in the middle of this pass: what it saw is incomplete,
            # only what it repaired is certain.
            self._report_log.log_repairs(report)
            return
        self._finish_pass(session, work, report)

    def _finish_pass(self, session: Session, work: Work, report: Report) -> None:
        """Log, count, schedule and publish what a pass found and did."""
        self._dirty.mark_done(work, report.failed_names)
        # A rebuilt state shows bookings that no pass has seen. And decision 97: after failures only
        # a sweep proves that passes succeed again.
        was_failing = session.status_builder.is_failing and not report.is_sweep
        if report.has_rebuilt_state or was_failing:
            self._dirty.mark(EVERYTHING)
        self._report_log.log_report(report, session.config.policy)
        self._metrics.count_pass(work, report)
        self._log_failure(session, session.add_missing_events(report))
        self._schedule_next(session, report)
        session.sample_prefetch.plan_next(self._upcoming_passes(session))
        session.status_builder.add_report(report)
        if report.is_sweep or self._publisher.may_publish():
            self._publish_status(session, sweep=report.is_sweep)
        else:
            # Without a name: it only ends the wait, and the turn of the loop publishes.
            self._timers.schedule(_PUBLISH, PUBLISH_EVERY_S, frozenset())
        self._log_failure(session, session.persist_if_due())
        if report.is_sweep:
            session.reconciles.end_sweep(report)

    def _schedule_next(self, session: Session, report: Report) -> None:
        """Wake up exactly at the first of the moments that verdicts and gate named."""
        session.wakeups.add_report(report)
        wakeup = session.wakeups.next_wakeup(session.read_boot())
        if wakeup is None:
            self._timers.cancel(_DUE)
        else:
            self._timers.schedule(_DUE, *wakeup)

    def _upcoming_passes(self, session: Session) -> Iterator[Boot]:
        """The moments at which passes are scheduled."""
        yield from session.wakeups
        sweep = self._timers.next_sweep()
        if sweep is not None:
            yield sweep

    def _publish_status(self, session: Session, *, sweep: bool) -> None:
        failure = self._publisher.publish(session, self._supervisor, sweep=sweep)
        self._log_failure(session, failure)
        session.status_calls.publish(session.status_builder.status)
        if sweep:
            session.freeze_gc()

    def _log_failure(self, session: Session, failure: str) -> None:
        """Log a failure that stops no repair; nothing for ""."""
        if failure:
            self._report_log.log_warning(failure, session.read_boot())

    def _dump_status(self, session: Session) -> None:
        for subject, text in session.status_builder.dump_lines():
            self._log.info(Event.STATUS_DUMP, subject=subject, text=text)


def _require_state_dir(session: Session) -> None:
    """Raise `WriteFailed` if the state directory is gone."""
    # Decision 99: only systemd may create it, at the next start, so this process ends.
    if session.parts.state_dir_lost():
        path = session.config.daemon.state_dir
        raise WriteFailed(f"{path} was removed or replaced; systemd creates it at the next start")
