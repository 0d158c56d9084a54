"""The daemon: one worker makes passes over whatever is dirty, until SIGTERM.

Decides when, never what. Events, timers, signals and retries only mark names dirty.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

from ds01d import __version__
from ds01d.config import Config
from ds01d.config_checks import describe_risks
from ds01d.daemon.dirty_set import EVERYTHING, DirtySet, Names, Work
from ds01d.daemon.event_log import ObservedEvent
from ds01d.daemon.pass_metrics import PassMetrics
from ds01d.daemon.publisher import PUBLISH_EVERY_S, StatusPublisher
from ds01d.daemon.report_log import ReportLogger
from ds01d.daemon.session import OpenParts, Session
from ds01d.daemon.systemd import ExitReason, Supervisor, block_signals, max_pass_s
from ds01d.daemon.timers import Timers
from ds01d.errors import ConfigError, Ds01Error, WriteFailed
from ds01d.model.primitives import Boot, ContainerName
from ds01d.reconcile.report import Report
from ds01d.reporting import logs
from ds01d.reporting.message_ids import Event
from ds01d.service.client import STOPPING
from ds01d.service.rules import unavailable
from ds01d.service.service import Service
from ds01d.service.waiting import WaitingQueue

_PUBLISH: Final = "publish"
_DUE: Final = "due"
_MAX_CALLS_PER_TURN: Final = 100

OpenService = Callable[[Config, Callable[[], None]], Service | None]
"""Open the booking service: `open_service(config, wake)`. Raises `ConfigError`."""


class Daemon:
    """Joins worker, dirty set, timers and signals around the session of a configuration."""

    def __init__(
        self,
        *,
        load: Callable[[], Config],
        open_parts: OpenParts,
        file: Path,
        open_service: OpenService = lambda *_: None,
    ) -> None:
        self._load, self._open_parts, self._file = load, open_parts, file
        self._open_service = open_service
        self._service: Service | None = None
        self._waiting = WaitingQueue()
        self._log = structlog.get_logger()
        self._timers = Timers(self._mark)
        self._dirty = DirtySet(self._timers.schedule)
        self._stopping = threading.Event()
        self._session: Session | None = None
        self._next_config: Config | None = None
        self._dump_requested = threading.Event()
        self._report_log = ReportLogger()
        self._metrics = PassMetrics(self._dirty.counters)
        self._publisher = StatusPublisher(self._timers, self._metrics)

    def run(self) -> int:
        """Run until SIGTERM; gives the exit status. Raises `ConfigError` if it cannot start."""
        config = self._load()
        logs.setup_logging(level=config.logs.level)
        block_signals()
        self._log.info(
            Event.DAEMON_START,
            version=__version__,
            mode=config.daemon.mode,
            file=str(self._file),
        )
        self._log_risks(config)
        supervisor = Supervisor(max_pass_s(config))
        self._start_service(config)
        self._timers.start()
        worker = threading.Thread(
            target=self._run_worker, args=(config, supervisor), name="ds01d-worker", daemon=True
        )
        worker.start()
        end = supervisor.run(reload=self._reload, stop=self._stop, dump=self._request_dump)
        self._timers.stop()
        self._log.info(Event.DAEMON_STOP, reason=str(end))
        if end is ExitReason.FORCED:
            os._exit(1)  # the worker hangs in a call: an orderly exit would wait for it
        return 0 if end is ExitReason.STOPPED else 1

    # --- called by the main thread

    def _reload(self) -> None:
        """Read the configuration again, then sweep. An invalid one is rejected."""
        try:
            config = self._load()
        except ConfigError as error:
            self._log.error(Event.CONFIG_REFUSED, reason=str(error))
        else:
            self._next_config = config
            self._log.info(Event.DAEMON_RELOAD, file=str(self._file))
            self._log_risks(config)
        self._dirty.mark(EVERYTHING)

    def _stop(self) -> None:
        self._stopping.set()
        if self._service is not None:
            self._service.reject(STOPPING)
        self._dirty.close()
        if self._session is not None:
            self._session.parts.close()  # breaks whatever call the worker waits for

    def _request_dump(self) -> None:
        self._dump_requested.set()
        self._dirty.wake()

    def _start_service(self, config: Config) -> None:
        """Open the booking service; without it ds01d still repairs."""
        try:
            self._service = self._open_service(config, self._dirty.wake)
        except ConfigError as error:
            self._log.error(Event.SERVICE_FAILED, reason=str(error))
        if self._service is not None:
            self._service.start()

    def _log_risks(self, config: Config) -> None:
        for risk in describe_risks(config):
            self._log.warning(Event.CONFIG_RISK, reason=risk)

    # --- called by the threads of the event stream and of the timers

    def _mark(self, names: Names) -> None:
        self._dirty.mark(names)

    def _on_change(self, names: frozenset[ContainerName] | None) -> None:
        self._metrics.on_events(names or frozenset())
        self._dirty.mark(EVERYTHING if names is None else names)

    def _on_event(self, event: ObservedEvent) -> None:
        if self._session is not None:
            self._session.on_event(event)

    # --- the worker

    def _run_worker(self, config: Config, supervisor: Supervisor) -> None:
        try:
            session = self._open_session(config)
            while not self._stopping.is_set():
                supervisor.mark_progress()
                session = self._apply_reload(session, supervisor)
                self._run_once(session, supervisor)
        except Exception as error:  # noqa: BLE001 - the worker must log why it ends
            self._log.error(Event.DAEMON_FAILED, reason=str(error), exc_info=True)
        finally:
            if self._session is not None:
                self._write_events(self._session, at_once=True)
                self._log_failure(self._session, self._session.persist())
                self._session.parts.close()
            self._waiting.fail_all(unavailable(STOPPING))
            if self._service is not None:
                self._service.close()
            self._metrics.close()
            supervisor.mark_worker_ended()

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
        for problem in session.parts.take_over_books():
            self._log.warning(Event.CONFIG_RISK, reason=problem)
        session.parts.start()
        self._timers.schedule_sweeps(
            daemon.sweep_interval_s, daemon.sweep_jitter_s, daemon.sweep_cron
        )
        self._dirty.mark(EVERYTHING)
        return session

    def _apply_reload(self, session: Session, supervisor: Supervisor) -> Session:
        """The session of the configuration that a reload read; the same one without a change."""
        if self._next_config is None:  # read first: SIGHUP may set it at any moment
            return session
        config, self._next_config = self._next_config, None
        if config == session.config:
            return session
        try:
            parts = self._open_parts(config, self._on_change, self._on_event)
        except Ds01Error as error:
            self._log.error(Event.CONFIG_REFUSED, reason=str(error))
            return session
        self._write_events(session, at_once=True)
        session.parts.close()
        logs.setup_logging(level=config.logs.level)
        supervisor.patience_s = max_pass_s(config)
        return self._start_session(
            Session(config, parts, self._publisher.build_status, self._waiting)
        )

    def _run_once(self, session: Session, supervisor: Supervisor) -> None:
        """One turn of the loop: wait for work, do it, publish the result."""
        session.sample_prefetch.start_if_due()
        self._mark_changed_bookings(session)
        wait_s = min(self._timers.wait_s(), session.wait_s())
        is_called = session.is_settled and self._service is not None and self._service.has_requests
        work = self._dirty.take(0.0 if is_called else wait_s)
        self._timers.fire_due()
        if work is None:
            work = self._dirty.take(0.0)  # what a timer marked just now
        supervisor.mark_progress()
        self._write_events(session)
        if work is not None:
            self._run_pass(session, supervisor, work)
            session.is_settled = True
            session.bookings.note_change()
        if session.is_settled:
            self._serve_calls(session, supervisor)
        self._write_events(session)
        if self._dump_requested.is_set():
            self._dump_requested.clear()
            self._dump_status(session)
        if session.status_builder.has_changes and self._publisher.may_publish():
            self._publish_status(session, supervisor, sweep=False)

    def _serve_calls(self, session: Session, supervisor: Supervisor) -> None:
        """Serve calls of the booking service; what they changed is looked at by the next pass."""
        if self._service is None:
            return
        session.bookings.serve_waiting_if_due()
        for _ in range(_MAX_CALLS_PER_TURN):
            request = self._service.take_request()
            if request is None:
                break
            supervisor.mark_progress()
            session.bookings.serve(request)
        names = session.bookings.take_changed_names()
        if names:
            self._dirty.mark(names)

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

    def _run_pass(self, session: Session, supervisor: Supervisor, work: Work) -> None:
        if not work.everything and not work.names:
            self._dirty.mark_done(work)
            return
        began = time.monotonic()
        try:
            report = session.reconciler.run(None if work.everything else work.names)
        except Exception as error:  # noqa: BLE001 - the one place where a pass may fail as a whole
            expected = isinstance(error, Ds01Error)
            if expected and self._stopping.is_set():
                return
            self._report_log.log_failed_pass(error, session.read_boot(), expected=expected)
            self._metrics.count_failed_pass(work, time.monotonic() - began, panic=not expected)
            self._dirty.retry_all()
            session.status_builder.add_failed_pass(
                str(error) or type(error).__name__, session.read_wall()
            )
            self._publish_status(session, supervisor, sweep=False)
            _require_state_dir(session)
            return
        if self._stopping.is_set():
            # `_stop` closed the adapters in the middle of this pass: what it saw is incomplete,
            # only what it repaired is certain.
            self._report_log.log_repairs(report)
            return
        self._finish_pass(session, supervisor, work, report)

    def _finish_pass(
        self, session: Session, supervisor: Supervisor, work: Work, report: Report
    ) -> None:
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
            self._publish_status(session, supervisor, sweep=report.is_sweep)
        else:
            self._timers.schedule(_PUBLISH, PUBLISH_EVERY_S, frozenset())
        self._log_failure(session, session.persist_if_due())

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

    def _publish_status(self, session: Session, supervisor: Supervisor, *, sweep: bool) -> None:
        failure = self._publisher.publish(session, supervisor, sweep=sweep)
        self._log_failure(session, failure)
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
