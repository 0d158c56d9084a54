"""Makes one pass over what is dirty, and does what follows from it: log, metrics, status, timers.

Decides neither when nor what.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from ds01d.daemon.dirty_set import EVERYTHING, DirtySet, Work
from ds01d.daemon.pass_metrics import PassMetrics
from ds01d.daemon.publisher import StatusPublisher
from ds01d.daemon.report_log import ReportLogger
from ds01d.daemon.session import Session
from ds01d.daemon.systemd import Supervisor
from ds01d.daemon.timers import Timers
from ds01d.errors import Ds01Error, WriteFailed
from ds01d.model.primitives import Boot, ContainerName
from ds01d.reconcile.report import Report

_DUE: Final = "due"


class PassRunner:
    """For the worker's thread. `stopping`: the adapters may be closed in the middle of a pass."""

    def __init__(
        self,
        dirty: DirtySet,
        timers: Timers,
        supervisor: Supervisor,
        metrics: PassMetrics,
        stopping: threading.Event,
    ) -> None:
        self._dirty, self._timers, self._supervisor = dirty, timers, supervisor
        self._metrics, self._stopping = metrics, stopping
        self._report_log = ReportLogger()
        self.publisher = StatusPublisher(timers, metrics)

    def run_pass(self, session: Session, work: Work) -> None:
        """Make a pass; a failure is logged, counted, and tried again later."""
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
            # `stop` closed the adapters on purpose: that is no failure to report.
            if expected and self._stopping.is_set():
                return
            self._report_log.log_failed_pass(error, session.read_boot(), expected=expected)
            self._metrics.count_failed_pass(work, time.monotonic() - began, panic=not expected)
            # Which names it had finished before it failed is not known.
            self._dirty.retry_all()
            if work.everything:
                session.reconciles.fail_sweep(str(error) or type(error).__name__)
            session.status_builder.add_failed_pass(
                str(error) or type(error).__name__, session.read_wall()
            )
            self.publish_status(session, sweep=False)
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
        self._try_optional(session, partial(session.add_missing_events, report))
        self._try_optional(session, partial(session.notices.add_report, report))
        self._try_optional(session, partial(session.show_fleet, report))
        self._schedule_next(session, report)
        session.process_watch.set_snapshot(report.decision.snapshot)
        session.sample_prefetch.plan_next(self._upcoming_passes(session))
        session.status_builder.add_report(report)
        # Otherwise the worker publishes after it has served waiting calls: with 1,000 containers a
        # status takes as long as two bookings.
        if report.is_sweep:
            self.publish_status(session, sweep=True)
        # After all that somebody may wait for.
        self._try_optional(session, partial(session.record_pass, report))
        self._try_optional(session, session.persist_if_due)
        if report.is_sweep:
            session.reconciles.end_sweep(report)

    def give_free_notices(self, session: Session) -> None:
        """Give the notices that slots are free, if it is time to look."""
        self._try_optional(session, session.free_notices.look_if_due)

    def update_fleet(self, session: Session, changed: frozenset[ContainerName]) -> None:
        """Show the fleet what bookings changed, if this host is in one."""
        self._try_optional(session, partial(session.update_fleet, changed))

    def _try_optional(self, session: Session, job: Callable[[], str | None]) -> None:
        """Run a job that no repair depends on; it returns its failure."""
        try:
            failure = job() or ""
        except Exception as error:  # noqa: BLE001 - decision 253
            failure = f"internal error: {type(error).__name__}: {error}"
        self.log_failure(session, failure)

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

    def publish_status(self, session: Session, *, sweep: bool) -> None:
        """Publish the status now."""
        failure = self.publisher.publish(session, self._supervisor, sweep=sweep)
        self.log_failure(session, failure)
        session.status_calls.publish(session.status_builder.status)
        if sweep:
            session.freeze_gc()

    def log_failure(self, session: Session, failure: str) -> None:
        """Log a failure that stops no repair; nothing for ""."""
        if failure:
            self._report_log.log_warning(failure, session.read_boot())


def _require_state_dir(session: Session) -> None:
    """Raise `WriteFailed` if the state directory is gone."""
    # Decision 99: only systemd may create it, at the next start, so this process ends.
    if session.parts.state_dir_lost():
        path = session.config.daemon.state_dir
        raise WriteFailed(f"{path} was removed or replaced; systemd creates it at the next start")
