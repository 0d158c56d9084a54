"""Turns the reports of passes into metrics.

Decides nothing. A failure in here is logged once, and passes go on. Without configured metrics
nothing is kept, and the Prometheus client is not loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from math import inf
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Protocol

from ds01d import __version__
from ds01d import config as configuration
from ds01d.adapters.host.clocks import read_boottime
from ds01d.config import Config
from ds01d.daemon.deliveries import read_deliveries
from ds01d.daemon.dirty_set import Counters, Work
from ds01d.daemon.metric_warnings import MetricWarnings
from ds01d.daemon.missed_drifts import MissedEvents
from ds01d.daemon.open_drifts import OpenDrifts
from ds01d.daemon.systemd import max_pass_s
from ds01d.model.drift import Outcome
from ds01d.model.primitives import ContainerName
from ds01d.reconcile.report import Report
from ds01d.reporting.metric_values import MetricsSnapshot, OpenDrift, Result, Scope, Totals
from ds01d.reporting.metrics_export import Exports
from ds01d.reporting.status import Status

if TYPE_CHECKING:
    from ds01d.reporting.metrics import Metrics

P = ParamSpec("P")
_TEXT: Final = "the metrics (text)"


class StreamCounters(Protocol):
    """Counters of Docker's event stream. `stream_problem`: "" while it is open."""

    @property
    def received(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def reconnects(self) -> int: ...
    @property
    def stream_problem(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _StreamCounts:
    received: int = 0
    lost: int = 0
    reconnects: int = 0


def _never_raises(
    method: Callable[Concatenate[PassMetrics, P], None],
) -> Callable[Concatenate[PassMetrics, P], None]:
    """Decorator: an exception of a method of the metrics is logged, not raised."""
    subject = f"the metrics ({method.__name__})"

    @wraps(method)
    def guarded(meter: PassMetrics, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(meter, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - repairs go on, whatever it is
            # Invariant 9: metrics that fail stop nothing, and are logged once.
            meter.warnings.report_state(subject, f"{type(error).__name__}: {error}")
        else:
            meter.warnings.report_state(subject, "")

    return guarded


class PassMetrics:
    """The worker counts; any thread renders.

    `queue`: the dirty set's counters. `boot`: seconds on CLOCK_BOOTTIME.
    """

    def __init__(
        self, queue: Callable[[], Counters], boot: Callable[[], float] = read_boottime
    ) -> None:
        self._queue, self._boot = queue, boot
        self.warnings = MetricWarnings(boot)
        self._exports = Exports(self.render, self.warnings.report_state)
        self._metrics: Metrics | None = None
        self._freeze_s, self._patience_s = 0.0, inf
        self._notify = configuration.NotifyConfig()
        # Read in other threads: each is replaced as a whole, and never changed.
        self._stream: tuple[StreamCounters | None, _StreamCounts] = (None, _StreamCounts())
        self._open = OpenDrifts()
        self._status: Status | None = None
        self._frozen_until = 0.0
        self._missed_events = MissedEvents()

    # --- called by the daemon

    @_never_raises
    def apply_config(self, config: Config, stream: StreamCounters | None) -> None:
        """Start or stop the exports of a configuration; the counts stay."""
        # A new stream counts from 0, and a counter that falls looks like a restart to Prometheus.
        self._stream = (stream, self._total_stream_counts())
        self._freeze_s, self._patience_s = config.policy.freeze_s, max_pass_s(config)
        if self._metrics is None and config.metrics != configuration.MetricsConfig():
            from ds01d.reporting.metrics import Metrics  # noqa: PLC0415 - only where it is wanted

            self._metrics = Metrics(__version__)
        self._notify = config.notify
        self._exports.apply_config(config.metrics)

    @_never_raises
    def close(self) -> None:
        self._exports.close()

    def on_events(self, names: frozenset[ContainerName]) -> None:
        """Note the containers of events; in the stream's thread."""
        if self._metrics is not None:
            self._missed_events.on_events(names)

    @_never_raises
    def count_pass(self, work: Work, report: Report) -> None:
        """A pass is over."""
        metrics = self._metrics
        if metrics is None:
            return
        metrics.count_pass(_pass_scope(work), _pass_result(report), report.duration_s)
        for gated in report.drifts if report.is_applied else ():
            if gated.outcome in (Outcome.DONE, Outcome.FAILED):
                metrics.count_repair(gated.drift.kind, gated.drift.action, gated.outcome)
            if gated.outcome is Outcome.DONE:
                # Invariant 6 is watched by this one: releases that no destroy event proved.
                metrics.count_releases(len(gated.drift.taken), paced=not gated.drift.reported)
        metrics.count_missed_events(self._missed_events.count_missed(report, self._open.by_key))
        self._open = self._open.merge(report)
        if report.checkpoint.inventory_changed is not None:
            self._frozen_until = report.checkpoint.inventory_changed + self._freeze_s

    @_never_raises
    def count_failed_pass(self, work: Work, seconds: float, *, panic: bool) -> None:
        """A pass failed as a whole; `panic`: by an unexpected error."""
        if self._metrics is not None:
            self._metrics.count_pass(_pass_scope(work), Result.ERROR, seconds)
            if panic:
                self._metrics.count_panic(_pass_scope(work))

    def set_status(self, status: Status) -> None:
        """A status was published."""
        self._status = status

    # --- called by the exports

    def render(self) -> bytes:
        """The metrics as text; b"" if that fails, which is logged."""
        if self._metrics is None:
            return b""
        try:
            text = self._metrics.render(self._take_snapshot())
        except Exception as error:  # noqa: BLE001 - the threads of the exports have to survive
            self.warnings.report_state(_TEXT, f"{type(error).__name__}: {error}")
            return b""
        self.warnings.report_state(_TEXT, "")
        return text

    def _take_snapshot(self) -> MetricsSnapshot:
        now, queue, events = self._boot(), self._queue(), self._total_stream_counts()
        (stream, _), open_drifts = self._stream, self._open
        return MetricsSnapshot(
            status=self._status,
            drifts=tuple(
                OpenDrift(
                    kind=gated.drift.kind,
                    verdict=gated.outcome,
                    gate=gated.gate,
                    age_s=max(0, now - open_drifts.first_seen[key]),
                )
                for key, gated in open_drifts.by_key.items()
            ),
            totals=Totals(
                adds=queue.adds,
                retries=queue.retries,
                received=events.received,
                lost=events.lost,
                reconnects=events.reconnects,
            ),
            depth=queue.depth,
            running_s=queue.running_s,
            stream_open=stream is not None and not stream.stream_problem,
            inventory_frozen=now < self._frozen_until,
            patience_s=self._patience_s,
            deliveries=read_deliveries(self._notify),
        )

    def _total_stream_counts(self) -> _StreamCounts:
        """The counters of this stream and of those that reloads replaced."""
        stream, before = self._stream
        if stream is None:
            return before
        return _StreamCounts(
            before.received + stream.received,
            before.lost + stream.lost,
            before.reconnects + stream.reconnects,
        )


def _pass_scope(work: Work) -> Scope:
    return Scope.SWEEP if work.everything else Scope.NAMES


def _pass_result(report: Report) -> Result:
    # The results that controller-runtime counts, which dashboards know.
    outcomes = {gated.outcome for gated in report.drifts}
    if Outcome.FAILED in outcomes:
        return Result.ERROR
    return Result.REQUEUE_AFTER if outcomes - {Outcome.DONE} else Result.SUCCESS
