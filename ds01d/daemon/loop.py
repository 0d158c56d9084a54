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
from ds01d.config import Config, risks
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
        self._schedule = Timers(self._mark)
        self._dirty = DirtySet(self._schedule.at)
        self._stopping = threading.Event()
        self._next: Config | None = None
        self._dump = threading.Event()
        self._teller = ReportLogger()
        self._meter = PassMetrics(self._dirty.counters)
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
        self._tell_risks(config)
        self._supervisor = Supervisor(max_pass_s(config))
        self._schedule.start()
        worker = threading.Thread(
            target=self._work, args=(config,), name="ds01d-worker", daemon=True
        )
        worker.start()
        end = self._supervisor.run(reload=self._reload, stop=self._stop, dump=self._ask_for_picture)
        self._schedule.stop()
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
            self._next = config
            self._log.info(Event.DAEMON_RELOAD, file=str(self._file))
            self._tell_risks(config)
        self._dirty.mark(EVERYTHING)

    def _stop(self) -> None:
        self._stopping.set()
        self._dirty.close()
        parts = getattr(self, "_parts", None)
        if parts is not None:  # breaks whatever call the worker waits for
            parts.close()

    def _ask_for_picture(self) -> None:
        self._dump.set()
        self._dirty.mark(())

    def _tell_risks(self, config: Config) -> None:
        for risk in risks(config):
            self._log.warning(Event.CONFIG_RISK, reason=risk)

    # --- told by the stream's and the timers' threads

    def _mark(self, names: Names) -> None:
        self._dirty.mark(names)

    def _changed(self, names: frozenset[ContainerName] | None) -> None:
        self._meter.heard(names or frozenset())
        self._dirty.mark(EVERYTHING if names is None else names)

    def _happened(self, event: ObservedEvent) -> None:
        if self._config.daemon.mode != "observe":  # the operations log is not ours to write then
            self._events.hear(event)

    # --- the worker

    def _work(self, config: Config) -> None:
        try:
            self._begin(config, self._open(config, self._changed, self._happened))
            while not self._stopping.is_set():
                self._turn()
        except Exception as error:  # noqa: BLE001 - the worker must say why it ends
            self._log.error(Event.DAEMON_FAILED, reason=str(error), exc_info=True)
        finally:
            parts = getattr(self, "_parts", None)
            if parts is not None:
                self._write_events(at_once=True)
                self._keep(parts)
                parts.close()
            self._meter.close()
            self._supervisor.over()

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
        self._picture = StatusBuilder(config)
        self._samples = SamplePrefetch(world.gpu, config.policy.settle_s, lambda: clock.now().boot)
        self._books = BooksWatch(config.books.state, world.state.read, lambda: clock.now().boot)
        self._kept_at = 0.0
        self._moments = Wakeups()
        self._settled_in = False
        self._meter.begin(config, parts.stream)
        parts.start()
        daemon = config.daemon
        self._schedule.sweep(daemon.sweep_interval_s, daemon.sweep_jitter_s, daemon.sweep_cron)
        self._dirty.mark(EVERYTHING)

    def _turn(self) -> None:
        """Once round the loop: wait for work, do it, say what came of it."""
        self._supervisor.progress()
        if self._next is not None:
            self._take_over()
        self._samples.begin()
        self._look_at_books()
        waits = (
            *(self._schedule.wait_s(), self._samples.wait_s()),
            *(self._events.wait_s(), self._books.wait_s()),
        )
        work = self._dirty.take(min(waits))
        self._schedule.catch_up()
        if work is None:
            work = self._dirty.take(0.0)  # what rang just now
        self._supervisor.progress()
        self._write_events()
        if work is not None:
            self._pass(work)
        self._write_events()
        if self._dump.is_set():
            self._dump.clear()
            self._show_picture()
        if self._picture.waiting and time.monotonic() - self._published_at >= PUBLISH_EVERY_S:
            self._show(sweep=False)

    def _look_at_books(self) -> None:
        """Look at whom somebody else has booked or released since they were last looked at."""
        if self._ready and not self._picture.waiting:
            names = self._books.changed(self._picture.bookings)
            if names:
                self._dirty.mark(names)

    def _write_events(self, *, at_once: bool = False) -> None:
        """Write the lines that wait for a wrapper's; at once where nobody will wait any more."""
        trouble = self._events.write(at_once=at_once)
        if trouble:
            self._trouble(trouble)

    def _compare_events(self, report: Report) -> None:
        """Log what containers show and no event did; not in mode observe: the log is not ours."""
        if self._config.daemon.mode != "observe":
            trouble = self._events.compare(report, self._config.policy.absence_grace_s)
            if trouble:
                self._trouble(trouble)

    def _take_over(self) -> None:
        """Begin again with the configuration that a reload brought."""
        config, self._next = self._next, None
        if config is None or config == self._config:
            return
        try:
            parts = self._open(config, self._changed, self._happened)
        except Ds01Error as error:
            self._log.error(Event.CONFIG_REFUSED, reason=str(error))
            return
        self._write_events(at_once=True)
        self._parts.close()
        logs.setup_logging(level=config.logs.level)
        self._supervisor.patience_s = max_pass_s(config)
        self._begin(config, parts)

    def _pass(self, work: Work) -> None:
        if not work.everything and not work.names:
            self._dirty.done(work)
            return
        began = time.monotonic()
        try:
            report = self._reconciler.run(None if work.everything else work.names)
        except Exception as error:  # noqa: BLE001 - the one place where a pass may fail as a whole
            expected = isinstance(error, Ds01Error)
            if expected and self._stopping.is_set():
                return
            self._teller.failed(error, self._parts.world.clock.now().boot, expected=expected)
            self._meter.failed(work, time.monotonic() - began, panic=not expected)
            self._dirty.retry()
            self._picture.note_failure(
                str(error) or type(error).__name__, self._parts.world.clock.now().wall
            )
            self._show(sweep=False)
            self._require_state_dir()
            return
        if self._stopping.is_set():  # Docker was cut off meanwhile: only what was done is true
            self._teller.tell_done(report)
            return
        self._dirty.done(work, _failed_names(report))
        if _state_was_rebuilt(report) or (self._picture.failing and not report.sweep):
            # What an unreadable state hid is to be seen now; or whether sweeps work again, too.
            self._dirty.mark(EVERYTHING)
        self._teller.tell(report, self._config.policy)
        self._meter.passed(work, report)
        self._compare_events(report)
        self._plan(report)
        self._samples.aim(self._ahead())
        self._publish(report)
        self._keep_now_and_then()

    def _require_state_dir(self) -> None:
        """End, for the service manager to make our directory again, which only it may do."""
        if self._parts.state_dir_lost():
            path = self._config.daemon.state_dir
            raise WriteFailed(
                f"{path} was removed or replaced; systemd makes it with the next start"
            )

    def _plan(self, report: Report) -> None:
        """Wake up at exactly the next of the moments that the verdicts and the gate named."""
        self._moments.note(report)
        first = self._moments.first(self._parts.world.clock.now().boot)
        if first is None:
            self._schedule.cancel(_DUE)
        else:
            self._schedule.at(_DUE, *first)

    def _ahead(self) -> Iterator[Boot]:
        """The moments at which passes are to come."""
        yield from self._moments
        sweep = self._schedule.next_sweep()
        if sweep is not None:
            yield sweep

    def _publish(self, report: Report) -> None:
        """Show what a pass left: at once after a sweep, else once a second at most."""
        self._picture.note(report)
        if report.sweep or time.monotonic() - self._published_at >= PUBLISH_EVERY_S:
            self._show(sweep=report.sweep)
        else:
            self._schedule.at(_PUBLISH, PUBLISH_EVERY_S, frozenset())

    def _show(self, *, sweep: bool) -> None:
        self._published_at = time.monotonic()
        now = self._parts.world.clock.now()
        shown = self._picture.paint(self._schedule.next_sweep(), now)
        self._meter.show(shown)
        line = status.format_summary(shown, now.wall)
        failed = status.write_with_fallback(
            shown, self._config.daemon.state_dir, _find_runtime_dir(os.environ)
        )
        if failed is not None:
            line = f"{line}; {failed}"
            self._trouble(failed)
        if self._ready:
            self._supervisor.status(line)
        elif sweep:
            self._ready = True
            self._supervisor.ready(line)
            self._log.info(Event.DAEMON_READY, status=line)
        else:
            self._supervisor.status(line)  # why it is not ready yet
        if sweep and not self._settled_in:
            self._settled_in = True
            freeze_gc()

    def _keep_now_and_then(self) -> None:
        if time.monotonic() - self._kept_at > PERSIST_EVERY_S:
            self._kept_at = time.monotonic()
            self._keep(self._parts)

    def _keep(self, parts: Parts) -> None:
        try:
            parts.keep()
        except Ds01Error as error:
            self._trouble(str(error))

    def _trouble(self, reason: str) -> None:
        self._teller.trouble(reason, self._parts.world.clock.now().boot)

    def _show_picture(self) -> None:
        for subject, text in self._picture.lines():
            self._log.info(Event.PICTURE, subject=subject, text=text)


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
