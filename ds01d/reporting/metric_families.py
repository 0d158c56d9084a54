"""The Prometheus metrics: names, labels and meanings. The only module that imports its client.

Labels are words of closed sets, never a container or a user, and every series exists from the
start; only the series of slots follow the host.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from ds01d.model.drift import Action, FindingKind, Kind, Outcome, WaitReason
from ds01d.model.fleet_drift import FleetDriftKind, FleetFindingKind
from ds01d.model.notice import DeliveryTarget
from ds01d.model.primitives import LOCAL_SOURCES
from ds01d.reporting.metric_values import DeliveryResult, FleetHosts, Frozen, Result, Scope

PREFIX: Final = "ds01d"
# From a pass over one name to one in which Docker and NVML each take all the time they may.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
# Label values are a contract with dashboards and alerts: what waits has always been "held" there.
OPEN_LABELS: Final = {Outcome.DUE: "due", Outcome.WAITING: "held", Outcome.FAILED: "failed"}
_SETTLED: Final = (Outcome.DONE, Outcome.FAILED)
_ACTIONS: Final = tuple(action for action in Action if action is not Action.NOTHING)


class MetricFamilies:
    """Every metric with its labels, in one registry."""

    def __init__(self, version: str) -> None:
        # `…_created` series double the number of series, and have only the start of the process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        # With a prefix: in a textfile they stand beside those of node_exporter itself.
        ProcessCollector(namespace=PREFIX, registry=self._registry)
        self._create_pass_metrics()
        self._create_queue_metrics()
        self._create_host_metrics()
        self._create_drift_metrics()
        self._create_notice_metrics()
        self._create_gauge(
            "build_info",
            "Always 1: the version of ds01d and of the Python it runs on.",
            version=(version,),
            python=(platform.python_version(),),
        ).labels(version, platform.python_version()).set(1)

    def _create_pass_metrics(self) -> None:
        self._reconcile = self._create_counter(
            "reconcile", "Passes, by result.", scope=Scope, result=Result
        )
        self._errors = self._create_counter(
            "reconcile_errors", "Passes that failed, or in which a repair failed.", scope=Scope
        )
        self._panics = self._create_counter(
            "reconcile_panics",
            "Passes that ended by an unexpected error: a bug of ds01d.",
            scope=Scope,
        )
        self._seconds = Histogram(
            f"{PREFIX}_reconcile_time_seconds",
            "How long passes took, the answers of all sources included.",
            ("scope",),
            buckets=SECONDS,
            registry=self._registry,
        )
        # From the start, with zeros: a rate over a series that begins later misses its first step.
        for scope in Scope:
            self._seconds.labels(scope)
        self._sweep_at = self._create_gauge(
            "last_sweep_timestamp_seconds", "When the last pass over everything began."
        )
        self._sweep_s = self._create_gauge(
            "last_sweep_duration_seconds", "How long the last pass over everything took."
        )
        self._sweep_next = self._create_gauge(
            "next_sweep_timestamp_seconds", "When the next pass over everything is to begin."
        )

    def _create_queue_metrics(self) -> None:
        self._depth = self._create_gauge(
            "workqueue_depth", "Names that wait for a pass; a sweep is one."
        )
        self._running = self._create_gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the running pass has taken so far; 0 if no pass runs.",
        )
        self._adds = self._create_counter(
            "workqueue_adds", "How often something was marked for a pass."
        )
        self._retries = self._create_counter(
            "workqueue_retries", "Retries scheduled after a failure."
        )
        self._received = self._create_counter("events_received", "Container events from Docker.")
        self._lost = self._create_counter(
            "events_lost", "Changes that a list showed and no event announced."
        )
        self._reconnects = self._create_counter(
            "event_stream_reconnects", "How often the stream of events was opened again."
        )
        self._stream = self._create_gauge(
            "event_stream_up", "1 while the stream of events is open."
        )
        self._missed = self._create_counter(
            "drifts_missed_by_events",
            "Drifts that an event should have announced, and a sweep found.",
        )

    def _create_host_metrics(self) -> None:
        self._ready = self._create_gauge(
            "ready", "1 once a pass over everything is done; 0 while passes fail."
        )
        self._failing = self._create_gauge(
            "passes_failing", "1 while passes fail as a whole, or the running one hangs."
        )
        self._success_at = self._create_gauge(
            "last_successful_pass_timestamp_seconds",
            "When the last pass began that succeeded; 0 if none did.",
        )
        self._observe = self._create_gauge(
            "observe_only", "1 in mode observe: nothing is repaired."
        )
        # The store of a fleet gets its series with its first answer: off, there is none.
        self._up = self._create_gauge(
            "source_up", "1 while the source answers.", source=LOCAL_SOURCES
        )
        self._success = self._create_gauge(
            "source_last_success_timestamp_seconds",
            "When the source last answered; 0 if it never did.",
            source=LOCAL_SOURCES,
        )
        self._slots = self._create_gauge(
            "slots",
            "Slots by who has them: held = by stopped containers alone, foreign = used unbooked.",
            gpu=(),
            profile=(),
            state=(),
        )
        self._idle_since = self._create_gauge(
            "slots_idle_since_timestamp_seconds",
            "Since when a running container has used none of its slots: the longest; 0 if none.",
            gpu=(),
            profile=(),
        )
        self._freezes = self._create_gauge("freezes", "Freezes in force.", subject=Frozen)
        self._pace_used = self._create_gauge(
            "pace_releases", "Releases without a destroy event in the window of the pace."
        )
        self._pace_limit = self._create_gauge("pace_limit", "How many of these the window allows.")
        self._engine = self._create_gauge(
            "engine_changed", "1 while another Docker engine answers than the trusted one."
        )
        self._inventory = self._create_gauge(
            "inventory_frozen", "1 while releases wait because the GPUs changed just now."
        )
        self._troubles = self._create_gauge(
            "troubles", "Warnings of the last pass that stop no repair (logs, checkpoint)."
        )

    def _create_notice_metrics(self) -> None:
        self._notices = self._create_counter(
            "notices",
            "Notices to users, by what became of them at a target of ds01d-notify.",
            target=DeliveryTarget,
            result=DeliveryResult,
        )
        self._notices_failing = self._create_gauge(
            "notices_failing", "1 while the last attempt at a target failed.", target=DeliveryTarget
        )

    def _create_drift_metrics(self) -> None:
        self._drifts = self._create_gauge(
            "drifts",
            "Differences between the books and what is right.",
            kind=Kind,
            verdict=OPEN_LABELS.values(),
        )
        self._gates = self._create_gauge(
            "drifts_held", "Drifts that wait, by what for.", gate=WaitReason
        )
        self._ages = self._create_gauge(
            "drift_oldest_age_seconds", "How long the oldest drift has been seen.", kind=Kind
        )
        self._findings = self._create_gauge(
            "findings", "What can only be reported, as the last sweep saw it.", kind=FindingKind
        )
        self._settled = self._create_counter(
            "drifts_settled", "Repairs of drifts, by result.", kind=Kind, result=_SETTLED
        )
        self._actions = self._create_counter(
            "actions", "What was done to the books.", action=_ACTIONS, result=_SETTLED
        )
        self._releases = self._create_counter(
            "releases",
            "Bookings that were taken away; paced = no destroy event proved it.",
            paced=("yes", "no"),
        )

    def _create_fleet_metrics(self) -> None:
        """Not from the start: a host without a store that others share has none of them."""
        self._fleet_hosts = self._create_gauge(
            "fleet_hosts", "Hosts in the store of the fleet, this one included.", state=FleetHosts
        )
        self._fleet_drifts = self._create_gauge(
            "fleet_drifts",
            "Entries of this host in the store that are not as its books are.",
            kind=FleetDriftKind,
            verdict=OPEN_LABELS.values(),
        )
        self._fleet_findings = self._create_gauge(
            "fleet_findings",
            "What the store shows and can only be reported.",
            kind=FleetFindingKind,
        )

    def _create_gauge(self, name: str, documentation: str, /, **labels: Iterable[str]) -> Gauge:
        made = Gauge(f"{PREFIX}_{name}", documentation, tuple(labels), registry=self._registry)
        for values in _label_combinations(labels):
            made.labels(*values)
        return made

    def _create_counter(self, name: str, documentation: str, /, **labels: Iterable[str]) -> Counter:
        made = Counter(f"{PREFIX}_{name}", documentation, tuple(labels), registry=self._registry)
        for values in _label_combinations(labels):
            made.labels(*values)
        return made

    def _generate_text(self) -> bytes:
        return generate_latest(self._registry)


def _label_combinations(labels: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """Every series that there can be, so that it is there from the start."""
    return product(*labels.values()) if labels else iter(())
