"""Counts what passes do, sets gauges when they are scraped. `metric_families` names them all."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from ds01d.model.drift import Action, FindingKind, Kind, Outcome, WaitReason
from ds01d.model.fleet_drift import FleetDriftKind, FleetFindingKind
from ds01d.model.notice import DeliveryRecord, DeliveryTarget
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.metric_families import OPEN_LABELS, MetricFamilies
from ds01d.reporting.metric_values import (
    DeliveryResult,
    FleetHosts,
    Frozen,
    MetricsSnapshot,
    OpenDrift,
    Result,
    Scope,
    SlotState,
    Totals,
    find_idle_since,
    slot_labels,
)
from ds01d.reporting.status import SlotStatus, Status


class Metrics(MetricFamilies):
    """The registry. The worker counts, any thread renders."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self._lock = threading.Lock()
        self._last_totals = Totals()
        self._last_deliveries: dict[tuple[DeliveryTarget, DeliveryResult], int] = {}
        self._has_fleet = False
        self._slots_shown: frozenset[tuple[str, str]] = frozenset()

    def render(self, reading: MetricsSnapshot) -> bytes:
        """All of it, in Prometheus' text format 0.0.4."""
        with self._lock:
            self._add_totals(reading.totals)
            self._set_drifts(reading.drifts)
            self._depth.set(reading.depth)
            self._running.set(reading.running_s)
            self._failing.set(_is_failing(reading))
            self._stream.set(reading.stream_open)
            self._inventory.set(reading.inventory_frozen)
            self._set_deliveries(reading.deliveries)
            if reading.status is not None:
                self._set_status(reading.status)
                self._ready.set(reading.status.ready and not _is_failing(reading))
            return self._generate_text()

    # --- counted as it happens

    def count_pass(self, scope: Scope, result: Result, seconds: float) -> None:
        """A pass is over."""
        self._reconcile.labels(scope, result).inc()
        self._seconds.labels(scope).observe(seconds)
        if result is Result.ERROR:
            self._errors.labels(scope).inc()

    def count_panic(self, scope: Scope) -> None:
        """A pass ended by an unexpected error; `count_pass` counts it as well."""
        self._panics.labels(scope).inc()

    def count_repair(self, kind: Kind, action: Action, result: Outcome) -> None:
        """A repair succeeded or failed."""
        self._settled.labels(kind, result).inc()
        if action is not Action.NOTHING:
            self._actions.labels(action, result).inc()

    def count_releases(self, count: int, *, paced: bool) -> None:
        """So many bookings were taken away; `paced`: without a destroy event."""
        self._releases.labels(_yes_or_no(paced)).inc(count)

    def count_missed_events(self, count: int) -> None:
        """Drifts that only a sweep found, without an event."""
        self._missed.inc(count)

    # --- set when scraped

    def _add_totals(self, now: Totals) -> None:
        # The client counts up by differences; the daemon keeps totals that survive a reload.
        before, self._last_totals = self._last_totals, now
        self._adds.inc(now.adds - before.adds)
        self._retries.inc(now.retries - before.retries)
        self._received.inc(now.received - before.received)
        self._lost.inc(now.lost - before.lost)
        self._reconnects.inc(now.reconnects - before.reconnects)

    def _set_deliveries(self, deliveries: Mapping[DeliveryTarget, DeliveryRecord]) -> None:
        for target, record in deliveries.items():
            self._notices_failing.labels(target).set(record.is_failing)
            counts = (record.sent, record.failed, record.dropped)
            for result, count in zip(DeliveryResult, counts, strict=True):
                before = self._last_deliveries.get((target, result), 0)
                # A record that was lost begins at zero again.
                self._notices.labels(target, result).inc(
                    count - before if count >= before else count
                )
                self._last_deliveries[target, result] = count

    def _set_drifts(self, drifts: Iterable[OpenDrift]) -> None:
        counts = Tally((drift.kind, drift.verdict) for drift in drifts)
        for kind, (verdict, label) in product(Kind, OPEN_LABELS.items()):
            self._drifts.labels(kind, label).set(counts[kind, verdict])
        gates = Tally(drift.gate for drift in drifts)
        for gate in WaitReason:
            self._gates.labels(gate).set(gates[gate])
        for kind in Kind:
            oldest = max((drift.age_s for drift in drifts if drift.kind is kind), default=0.0)
            self._ages.labels(kind).set(oldest)

    def _set_status(self, status: Status) -> None:
        self._success_at.set(status.passes.last_success or 0.0)
        self._observe.set(status.mode == "observe")
        for source, answer in status.sources.items():
            self._up.labels(source).set(answer.ok)
            self._success.labels(source).set(answer.last_success or 0.0)
        if status.last_sweep is not None:
            self._sweep_at.set(status.last_sweep.at)
            self._sweep_s.set(status.last_sweep.duration_s)
        self._sweep_next.set(status.next_sweep or 0.0)
        findings = Tally(finding.kind for finding in status.findings)
        for kind in FindingKind:
            self._findings.labels(kind).set(findings[kind])
        frozen = Tally(
            Frozen.EVERYTHING if freeze.subject == "*" else Frozen.ONE for freeze in status.freezes
        )
        for subject in Frozen:
            self._freezes.labels(subject).set(frozen[subject])
        self._pace_used.set(status.pace.used)
        self._pace_limit.set(status.pace.limit)
        self._engine.set(not status.engine_trusted)
        self._troubles.set(len(status.degraded))
        self._set_slots(status.slots)
        if status.fleet is not None:
            self._set_fleet(status.fleet)

    def _set_fleet(self, fleet: FleetStatus) -> None:
        if not self._has_fleet:
            self._has_fleet = True
            self._create_fleet_metrics()
        # Not of the lists, which are cut.
        counts = fleet.counts
        self._fleet_hosts.labels(FleetHosts.UNSEEN).set(counts.unseen)
        self._fleet_hosts.labels(FleetHosts.ALIVE).set(counts.hosts - counts.unseen)
        for kind, (outcome, label) in product(FleetDriftKind, OPEN_LABELS.items()):
            drifts = counts.drifts.get(str(kind), {})
            self._fleet_drifts.labels(kind, label).set(drifts.get(str(outcome), 0))
        for finding in FleetFindingKind:
            self._fleet_findings.labels(finding).set(counts.findings.get(str(finding), 0))

    def _set_slots(self, slots: Sequence[SlotStatus]) -> None:
        counts = Tally(map(slot_labels, slots))
        places = frozenset((gpu, profile) for gpu, profile, _ in counts)
        # A layout that is gone would otherwise be exported with its last values for ever.
        for (gpu, profile), state in product(self._slots_shown - places, SlotState):
            self._slots.remove(gpu, profile, state)
        for gpu, profile in self._slots_shown - places:
            self._idle_since.remove(gpu, profile)
        for (gpu, profile), state in product(places, SlotState):
            self._slots.labels(gpu, profile, state).set(counts[gpu, profile, state])
        idle_since = find_idle_since(slots)
        for gpu, profile in places:
            self._idle_since.labels(gpu, profile).set(idle_since.get((gpu, profile), 0.0))
        self._slots_shown = places


def _is_failing(reading: MetricsSnapshot) -> bool:
    failing = reading.status is not None and reading.status.passes.failing
    return failing or reading.running_s > reading.patience_s


def _yes_or_no(fact: bool) -> str:  # noqa: FBT001 - a word for it is all this is
    return "yes" if fact else "no"
