"""The worker: one thread that has passes made over what is dirty, and serves calls between them.

Decides when, never what. `reload` and `dump` are flags that it reads between two passes; `stop`
also closes the adapters at once, which ends a pass.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Final

import structlog

from ds01d.config import Config
from ds01d.daemon.dirty_set import EVERYTHING, DirtySet
from ds01d.daemon.event_log import ObservedEvent
from ds01d.daemon.pass_metrics import PassMetrics
from ds01d.daemon.pass_runner import PassRunner
from ds01d.daemon.session import Session
from ds01d.daemon.session_parts import OpenParts, SessionParts
from ds01d.daemon.systemd import Supervisor, max_pass_s
from ds01d.daemon.timers import Timers
from ds01d.errors import Ds01Error
from ds01d.model.primitives import ContainerName
from ds01d.reporting import logs
from ds01d.reporting.message_ids import Event
from ds01d.service.client import STOPPING
from ds01d.service.dispatch import serve_call
from ds01d.service.rules import unavailable
from ds01d.service.service import Service
from ds01d.service.waiting import WaitingQueue

_CALLS_S: Final = 1.0  # calls are served at most this long between two passes
_REPLY_S: Final = 0.005  # a reply is sent in a tenth of that, unless the machine is busy


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
        self._logged_risks: set[str] = set()
        self._dump_requested = threading.Event()
        self._metrics = PassMetrics(dirty.counters)
        self._passes = PassRunner(dirty, timers, supervisor, self._metrics, self._stopping)
        self._publisher = self._passes.publisher

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
                self._passes.log_failure(self._session, self._session.persist())
                self._session.close()
            self._waiting.fail_all(unavailable(STOPPING))
            if self._service is not None:
                self._service.close()
            self._metrics.close()
            self._supervisor.mark_worker_ended()

    def _open_session(self, config: Config) -> Session:
        parts = self._open_parts(config, self._on_change, self._on_event)
        return self._start_session(self._make_session(config, parts))

    def _make_session(self, config: Config, parts: SessionParts) -> Session:
        build_status, wake = self._publisher.build_status, self._dirty.wake
        return Session(config, parts, build_status, self._waiting, wake)

    def _start_session(self, session: Session) -> Session:
        self._session, daemon = session, session.config.daemon
        self._metrics.apply_config(session.config, session.parts.stream)
        if self._service is not None:
            self._service.apply_config(session.config)
        self._logged_risks.clear()
        self._take_over_books(session)
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
        self._passes.log_failure(session, session.persist())
        session.close()
        logs.setup_logging(level=config.logs.level)
        self._supervisor.patience_s = max_pass_s(config)
        return self._start_session(self._make_session(config, parts))

    def _run_once(self, session: Session) -> None:
        """One turn of the loop: wait for work, do it, publish the result."""
        session.sample_prefetch.start_if_due()
        self._mark_changed_bookings(session)
        self._mark_ended_reservations(session)
        wait_s = min(self._timers.wait_s(), session.wait_s(), self._find_status_wait(session))
        is_called = session.is_ready and (
            session.bookings.has_reserved
            or (self._service is not None and self._service.has_requests)
        )
        # A call that waits already must not wait for the next deadline as well.
        work = self._dirty.take(0.0 if is_called else wait_s)
        self._timers.fire_due()
        if work is None:
            work = self._dirty.take(0.0)  # what a timer marked just now
        self._supervisor.mark_progress()
        self._write_events(session)
        if work is not None:
            self._passes.run_pass(session, work)
            # Root may have changed the owner or mode of the books since the last sweep.
            if work.everything:
                self._take_over_books(session)
            session.is_ready = True
            session.bookings.note_change()
            session.free_notices.note_change()
        if session.is_ready:
            self._serve_calls(session)
            self._passes.give_free_notices(session)
        self._write_events(session)
        self._passes.log_failure(session, session.notices.take_failure())
        if self._dump_requested.is_set():
            self._dump_requested.clear()
            self._dump_status(session)
        if session.status_builder.has_changes and not self._publisher.wait_s():
            self._passes.publish_status(session, sweep=False)
        session.status_calls.send_if_due()

    def _serve_calls(self, session: Session) -> None:
        """Serve calls of the booking service; what they changed is looked at by the next pass."""
        if self._service is None:
            self._passes.update_fleet(session, frozenset())
            return
        # Decision 368: who calls once they are answered is served after the pass. And bounded.
        requests, until = self._service.take_requests(), time.monotonic() + _CALLS_S
        session.bookings.serve_reserved()
        session.bookings.serve_waiting_if_due()
        for request in requests:
            self._supervisor.mark_progress()
            serve_call(request, session.handlers)
            # Before the next pass, which would keep the interpreter from the thread that sends.
            request.wait_sent(_REPLY_S)
            if time.monotonic() >= until:
                break
        names = session.bookings.take_changed_names()
        self._passes.update_fleet(session, names)
        if names:
            self._dirty.mark(names)
        if session.operations.take_changes() or not session.reconciles.wait_s():
            self._dirty.mark(EVERYTHING)

    def _find_status_wait(self, session: Session) -> float:
        """Seconds until the status may be published, or is next compared with the books."""
        # Decision 335: while a status is unpublished the books are not compared.
        if session.status_builder.has_changes:
            return self._publisher.wait_s()
        return session.books_watch.wait_s() if self._publisher.is_ready else math.inf

    def _mark_changed_bookings(self, session: Session) -> None:
        """Mark the containers that another writer has booked or released since the last look."""
        # While a pass is not published yet, its own changes would look like another writer's.
        if self._publisher.is_ready and not session.status_builder.has_changes:
            names = session.books_watch.find_changes(session.status_builder.list_bookings)
            if names:
                self._dirty.mark(names)

    def _take_over_books(self, session: Session) -> None:
        for problem in session.parts.take_over_books():
            if problem not in self._logged_risks:
                self._logged_risks.add(problem)
                self._log.warning(Event.CONFIG_RISK, reason=problem)

    def _mark_ended_reservations(self, session: Session) -> None:
        names = session.process_watch.find_ended()
        if names:
            self._dirty.mark(names)

    def _write_events(self, session: Session, *, at_once: bool = False) -> None:
        """Write the lines of events that no wrapper logged; `at_once`: also those not due yet."""
        self._passes.log_failure(session, session.events.write_due(at_once=at_once))

    def _dump_status(self, session: Session) -> None:
        for subject, text in session.status_builder.dump_lines():
            self._log.info(Event.STATUS_DUMP, subject=subject, text=text)
