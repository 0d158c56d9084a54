"""The daemon: one worker that makes passes over whatever is dirty, until it is told to stop.

Decides when, never what. Events, timers, signals and retries only mark names dirty.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from ds01d import __version__
from ds01d.config import Config, describe_risks
from ds01d.daemon.books_watch import BooksWatch
from ds01d.daemon.dirty_set import EVERYTHING, DirtySet, Names, Work
from ds01d.daemon.event_log import EventLog, LogPort, ObservedEvent
from ds01d.daemon.pass_metrics import PassMetrics, StreamCounters
from ds01d.daemon.report_log import ReportLogger
from ds01d.daemon.sample_prefetch import SamplePrefetch
from ds01d.daemon.status_builder import StatusBuilder
from ds01d.daemon.systemd import ExitReason, Supervisor, block_signals, max_pass_s
from ds01d.daemon.timers import Timers
from ds01d.daemon.wakeups import Wakeups
from ds01d.errors import ConfigError, Ds01Error, WriteFailed
from ds01d.model.drift import Kind, Outcome
from ds01d.model.primitives import Boot, ContainerName
from ds01d.reconcile.ports import World
from ds01d.reconcile.reconciler import Reconciler, Report
from ds01d.reporting import logs, status
from ds01d.reporting.message_ids import Event

PERSIST_EVERY_S: Final = 60.0
PUBLISH_EVERY_S: Final = 1.0
MAX_RECORDS_PER_PASS: Final = 100
"""Of metadata alone in one pass: what comes in between waits for a fraction of a second."""
_PUBLISH: Final = "publish"
_DUE: Final = "due"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one configuration opens: the world, and how to begin, keep and end it.

    `stream`: what is counted of Docker's events, None where nobody listens to them.
    `state_dir_lost`: our directory is gone, and the service manager makes it at the next start.
    """

    world: World
    operations: LogPort
    start: Callable[[], None]
    keep: Callable[[], None]
    close: Callable[[], None]
    stream: StreamCounters | None = None
    state_dir_lost: Callable[[], bool] = lambda: False


OnChange = Callable[[frozenset[ContainerName] | None], None]
OnEvent = Callable[[ObservedEvent], None]
Open = Callable[[Config, OnChange, OnEvent], Parts]


class Daemon:
    """Joins worker, dirty set, timers and signals around a `Reconciler`."""

    def __init__(self, *, load: Callable[[], Config], open_parts: Open, file: Path) -> None:
        self._load, self._open, self._file = load, open_parts, file
        self._log = structlog.get_logger()
        self._timers = Timers(self._mark)
        self._dirty = DirtySet(self._timers.schedule)
        self._stopping = threading.Event()
        self._next_config: Config | None = None
        self._dump_requested = threading.Event()
        self._report_log = ReportLogger()
        self._metrics = PassMetrics(self._dirty.counters)
        self._ready = False
        self._published_at = 0.0

    def run(self) -> int:
        """Until SIGTERM; the exit status. Raises `ConfigError` if it cannot even begin."""
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
        self._supervisor = Supervisor(max_pass_s(config))
        self._timers.start()
        worker = threading.Thread(
            target=self._run_worker, args=(config,), name="ds01d-worker", daemon=True
        )
        worker.start()
        end = self._supervisor.run(reload=self._reload, stop=self._stop, dump=self._request_dump)
        self._timers.stop()
        self._log.info(Event.DAEMON_STOP, reason=str(end))
        if end is ExitReason.FORCED:
            os._exit(1)
        return 0 if end is ExitReason.STOPPED else 1

    # --- told by the main thread

    def _reload(self) -> None:
        """Read the configuration again; a bad one is refused and the old one stays. Then sweep."""
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
        self._dirty.close()
        parts = getattr(self, "_parts", None)
        if parts is not None:  # breaks whatever call the worker waits for
            parts.close()

    def _request_dump(self) -> None:
        self._dump_requested.set()
        self._dirty.mark(())

    def _log_risks(self, config: Config) -> None:
        for risk in describe_risks(config):
            self._log.warning(Event.CONFIG_RISK, reason=risk)

    # --- told by the stream's and the timers' threads

    def _mark(self, names: Names) -> None:
        self._dirty.mark(names)

    def _on_change(self, names: frozenset[ContainerName] | None) -> None:
        self._metrics.on_events(names or frozenset())
        self._dirty.mark(EVERYTHING if names is None else names)

    def _on_event(self, event: ObservedEvent) -> None:
        if self._config.daemon.mode != "observe":  # the operations log is not ours to write then
            self._events.on_event(event)

    # --- the worker

    def _run_worker(self, config: Config) -> None:
        try:
            self._begin(config, self._open(config, self._on_change, self._on_event))
            while not self._stopping.is_set():
                self._run_once()
        except Exception as error:  # noqa: BLE001 - the worker must say why it ends
            self._log.error(Event.DAEMON_FAILED, reason=str(error), exc_info=True)
        finally:
            parts = getattr(self, "_parts", None)
            if parts is not None:
                self._write_events(at_once=True)
                self._persist(parts)
                parts.close()
            self._metrics.close()
            self._supervisor.mark_worker_ended()

    def _begin(self, config: Config, parts: Parts) -> None:
        self._config, self._parts = config, parts
        clock = parts.world.clock
        self._events = EventLog(
            self._parts.operations,
            lambda: clock.now().wall,
            lambda: clock.now().boot,
            parts.world.passwd.find_logins,
        )
        world = replace(parts.world, operations=self._events)
        self._reconciler = Reconciler(world, config, most_records=MAX_RECORDS_PER_PASS)
        self._status_builder = StatusBuilder(config)
        self._sample_prefetch = SamplePrefetch(
            world.gpu, config.policy.settle_s, lambda: clock.now().boot
        )
        self._books_watch = BooksWatch(
            config.books.state, world.state.read, lambda: clock.now().boot
        )
        self._persisted_at = 0.0
        self._wakeups = Wakeups()
        self._is_gc_frozen = False
        self._metrics.apply_config(config, parts.stream)
        parts.start()
        daemon = config.daemon
        self._timers.schedule_sweeps(
            daemon.sweep_interval_s, daemon.sweep_jitter_s, daemon.sweep_cron
        )
        self._dirty.mark(EVERYTHING)

    def _run_once(self) -> None:
        """Once round the loop: wait for work, do it, say what came of it."""
        self._supervisor.mark_progress()
        if self._next_config is not None:
            self._apply_reload()
        self._sample_prefetch.start_if_due()
        self._check_books()
        waits = (
            *(self._timers.wait_s(), self._sample_prefetch.wait_s()),
            *(self._events.wait_s(), self._books_watch.wait_s()),
        )
        work = self._dirty.take(min(waits))
        self._timers.fire_due()
        if work is None:
            work = self._dirty.take(0.0)  # what rang just now
        self._supervisor.mark_progress()
        self._write_events()
        if work is not None:
            self._run_pass(work)
        self._write_events()
        if self._dump_requested.is_set():
            self._dump_requested.clear()
            self._dump_status()
        if (
            self._status_builder.has_changes
            and time.monotonic() - self._published_at >= PUBLISH_EVERY_S
        ):
            self._publish_status(sweep=False)

    def _check_books(self) -> None:
        """Look at whom somebody else has booked or released since they were last looked at."""
        if self._ready and not self._status_builder.has_changes:
            names = self._books_watch.find_changes(self._status_builder.list_bookings)
            if names:
                self._dirty.mark(names)

    def _write_events(self, *, at_once: bool = False) -> None:
        """Write the lines that wait for a wrapper's; at once where nobody will wait any more."""
        trouble = self._events.write_due(at_once=at_once)
        if trouble:
            self._log_warning(trouble)

    def _add_missing_lines(self, report: Report) -> None:
        """Log what containers show and no event did; not in mode observe: the log is not ours."""
        if self._config.daemon.mode != "observe":
            trouble = self._events.add_missing_lines(report, self._config.policy.absence_grace_s)
            if trouble:
                self._log_warning(trouble)

    def _apply_reload(self) -> None:
        """Begin again with the configuration that a reload brought."""
        config, self._next_config = self._next_config, None
        if config is None or config == self._config:
            return
        try:
            parts = self._open(config, self._on_change, self._on_event)
        except Ds01Error as error:
            self._log.error(Event.CONFIG_REFUSED, reason=str(error))
            return
        self._write_events(at_once=True)
        self._parts.close()
        logs.setup_logging(level=config.logs.level)
        self._supervisor.patience_s = max_pass_s(config)
        self._begin(config, parts)

    def _run_pass(self, work: Work) -> None:
        if not work.everything and not work.names:
            self._dirty.mark_done(work)
            return
        began = time.monotonic()
        try:
            report = self._reconciler.run(None if work.everything else work.names)
        except Exception as error:  # noqa: BLE001 - the one place where a pass may fail as a whole
            expected = isinstance(error, Ds01Error)
            if expected and self._stopping.is_set():
                return
            self._report_log.log_failed_pass(
                error, self._parts.world.clock.now().boot, expected=expected
            )
            self._metrics.count_failed_pass(work, time.monotonic() - began, panic=not expected)
            self._dirty.retry_all()
            self._status_builder.add_failed_pass(
                str(error) or type(error).__name__, self._parts.world.clock.now().wall
            )
            self._publish_status(sweep=False)
            self._require_state_dir()
            return
        if self._stopping.is_set():  # Docker was cut off meanwhile: only what was done is true
            self._report_log.log_repairs(report)
            return
        self._dirty.mark_done(work, _failed_names(report))
        if _state_was_rebuilt(report) or (self._status_builder.is_failing and not report.is_sweep):
            # What an unreadable state hid is to be seen now; or whether sweeps work again, too.
            self._dirty.mark(EVERYTHING)
        self._report_log.log_report(report, self._config.policy)
        self._metrics.count_pass(work, report)
        self._add_missing_lines(report)
        self._schedule_next(report)
        self._sample_prefetch.plan_next(self._upcoming_passes())
        self._add_to_status(report)
        self._persist_periodically()

    def _require_state_dir(self) -> None:
        """End, for the service manager to make our directory again, which only it may do."""
        if self._parts.state_dir_lost():
            path = self._config.daemon.state_dir
            raise WriteFailed(
                f"{path} was removed or replaced; systemd makes it with the next start"
            )

    def _schedule_next(self, report: Report) -> None:
        """Wake up at exactly the next of the moments that the verdicts and the gate named."""
        self._wakeups.add_report(report)
        first = self._wakeups.next_wakeup(self._parts.world.clock.now().boot)
        if first is None:
            self._timers.cancel(_DUE)
        else:
            self._timers.schedule(_DUE, *first)

    def _upcoming_passes(self) -> Iterator[Boot]:
        """The moments at which passes are to come."""
        yield from self._wakeups
        sweep = self._timers.next_sweep()
        if sweep is not None:
            yield sweep

    def _add_to_status(self, report: Report) -> None:
        """Show what a pass left: at once after a sweep, else once a second at most."""
        self._status_builder.add_report(report)
        if report.is_sweep or time.monotonic() - self._published_at >= PUBLISH_EVERY_S:
            self._publish_status(sweep=report.is_sweep)
        else:
            self._timers.schedule(_PUBLISH, PUBLISH_EVERY_S, frozenset())

    def _publish_status(self, *, sweep: bool) -> None:
        self._published_at = time.monotonic()
        now = self._parts.world.clock.now()
        shown = self._status_builder.build(self._timers.next_sweep(), now)
        self._metrics.set_status(shown)
        line = status.format_summary(shown, now.wall)
        failed = status.write_with_fallback(
            shown, self._config.daemon.state_dir, _find_runtime_dir(os.environ)
        )
        if failed is not None:
            line = f"{line}; {failed}"
            self._log_warning(failed)
        if self._ready:
            self._supervisor.notify_status(line)
        elif sweep:
            self._ready = True
            self._supervisor.notify_ready(line)
            self._log.info(Event.DAEMON_READY, status=line)
        else:
            self._supervisor.notify_status(line)  # why it is not ready yet
        if sweep and not self._is_gc_frozen:
            self._is_gc_frozen = True
            freeze_gc()

    def _persist_periodically(self) -> None:
        if time.monotonic() - self._persisted_at > PERSIST_EVERY_S:
            self._persisted_at = time.monotonic()
            self._persist(self._parts)

    def _persist(self, parts: Parts) -> None:
        try:
            parts.keep()
        except Ds01Error as error:
            self._log_warning(str(error))

    def _log_warning(self, reason: str) -> None:
        self._report_log.log_warning(reason, self._parts.world.clock.now().boot)

    def _dump_status(self) -> None:
        for subject, text in self._status_builder.dump_lines():
            self._log.info(Event.STATUS_DUMP, subject=subject, text=text)


def _find_runtime_dir(environ: Mapping[str, str]) -> Path | None:
    """Where systemd lets this service keep files until it stops (RuntimeDirectory=)."""
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(folder) if folder else None


def freeze_gc() -> None:
    """Take what is there by now, and stays, out of the garbage collector's sight.

    It would look at all of it now and then (35 ms with 1,000 containers, 165 with 10,000, where
    afterwards it takes 1 and 17), perhaps just when a release is due. What nobody refers to any
    more is freed as before; only old cycles are not found until the next reload.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _failed_names(report: Report) -> frozenset[ContainerName]:
    """Whom to come back to with growing delay."""
    return frozenset(_names(report))


def _names(report: Report) -> Iterable[ContainerName]:
    for gated in report.drifts:
        if gated.outcome is Outcome.FAILED and gated.drift.container is not None:
            yield gated.drift.container


def _state_was_rebuilt(report: Report) -> bool:
    return any(
        gated.outcome is Outcome.DONE and gated.drift.kind is Kind.UNREADABLE_STATE
        for gated in report.drifts
    )
