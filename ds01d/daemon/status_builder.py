"""Builds the published status from reports: status.json, STATUS=, and the dump of SIGUSR1.

A sweep replaces all of it, a pass over names only what it saw. Decides nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from ds01d import __version__
from ds01d.config import Config
from ds01d.daemon.books_watch import Bookings
from ds01d.daemon.device_readings import build_gpu_statuses, find_readings_time
from ds01d.daemon.open_drifts import OpenDrifts
from ds01d.daemon.slot_statuses import build_slot_statuses
from ds01d.decide.pace import measure_window
from ds01d.decide.usage import find_uses, find_without_devices
from ds01d.model.containers import Engine
from ds01d.model.drift import Finding, GatedDrift, Outcome
from ds01d.model.holding import Verdict
from ds01d.model.primitives import Boot, ContainerName, Now, Source, Unknown, Wall
from ds01d.model.usage import DeviceUse
from ds01d.reconcile.report import Report
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.status import (
    MOST_DRIFTS,
    DriftCount,
    Pace,
    PassHealth,
    PublishedDrift,
    SlotStatus,
    SourceStatus,
    Status,
    Sweep,
)
from ds01d.reporting.status_changes import mark_passes_failing, with_fleet
from ds01d.reporting.status_summary import format_summary


class StatusBuilder:
    """Collects reports, and builds the status from them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._verdicts: dict[ContainerName, Verdict] = {}
        self._drifts = OpenDrifts()
        self._findings: tuple[Finding, ...] = ()
        self._sources: dict[Source, SourceStatus] = {}
        self._sweep: Sweep | None = None
        self._slots: tuple[SlotStatus, ...] = ()
        self._readings_at: Wall | None = None
        self._uses: tuple[DeviceUse, ...] = ()
        self._without_devices: tuple[str, ...] = ()
        self._pending_report: Report | None = None
        self._has_changes = False
        self._passes = PassHealth()
        self._fleet: tuple[FleetStatus, SourceStatus] | None = None
        self.status = Status(
            written_at=Wall(0.0),
            pid=os.getpid(),
            version=__version__,
            mode=config.daemon.mode,
            ready=False,
            engine_trusted=True,
            sources={},
            pace=Pace(used=0, limit=0, window_s=float(config.policy.pace_window_s)),
            state_dir=str(config.daemon.state_dir),
        )

    @property
    def is_failing(self) -> bool:
        """Passes fail as a whole, so the status is older than the host."""
        return self._passes.failing

    def add_failed_pass(self, reason: str, at: Wall) -> None:
        """A pass failed as a whole."""
        before = self._passes
        self._passes = PassHealth(
            last_success=before.last_success,
            failing_since=before.failing_since if before.failing else at,
            failures=before.failures + 1,
            reason=reason,
        )

    def list_bookings(self) -> Bookings:
        """The bookings that were published."""
        return frozenset(
            (holder.container, slot.id) for slot in self.status.slots for holder in slot.holders
        )

    @property
    def has_changes(self) -> bool:
        """A report was added that is not published yet, though somebody may have asked since."""
        return self._has_changes

    def mark_published(self) -> None:
        """The status that was built last is published."""
        self._has_changes = False

    def add_report(self, report: Report) -> None:
        """Add the report of a pass; cheap."""
        now = report.decision.snapshot.now
        self._pending_report, self._has_changes = report, True
        if report.is_sweep or not self.is_failing:  # a pass over names proves nothing of a sweep
            self._passes = PassHealth(last_success=now.wall)
        self._update_sources(report, now)
        self._drifts = self._drifts.merge(report)
        if report.is_sweep:
            # Only a sweep shows which containers are gone, and have no verdict any more.
            self._verdicts.clear()
            self._sweep = Sweep(at=now.wall, duration_s=round(report.duration_s, 3))
            self._findings = report.findings
        self._verdicts |= report.decision.verdicts

    def add_fleet(self, fleet: FleetStatus, source: SourceStatus) -> None:
        """How this host stands in its fleet; nothing if that is published already."""
        if self._fleet != (fleet, source):
            self._fleet, self._has_changes = (fleet, source), True

    def build(self, next_sweep: Boot | None, now: Now) -> Status:
        """The status of all reports so far."""
        self._build(next_sweep, now)
        if self._fleet is not None:
            self.status = with_fleet(self.status, *self._fleet)
        return self.status

    def _build(self, next_sweep: Boot | None, now: Now) -> None:
        report, self._pending_report = self._pending_report, None
        # Decision 131: no pass has worked since, so what only needed time counts as failed.
        if report is None:
            self.status = mark_passes_failing(
                self.status, self._passes, now.wall, now.to_wall(next_sweep)
            )
            return
        index, checkpoint, policy = report.decision.index, report.checkpoint, self._config.policy
        self._update_uses(report)
        # Without books the slots that were seen last stay: unknown is not empty.
        if index is not None:
            self._slots = build_slot_statuses(index, self._drifts, self._verdicts, self._uses, now)
            # With the slots, whose readings are of that sample.
            self._readings_at = find_readings_time(report.decision.snapshot.gpu, now)
        bookings = sum(len(slot.holders) for slot in self._slots)
        window = measure_window(checkpoint, policy, now, bookings=bookings)
        docker = report.decision.snapshot.docker
        counts = Counter((gated.drift.kind, gated.outcome) for gated in self._list_drifts())
        self.status = Status(
            written_at=now.wall,
            pid=os.getpid(),
            version=__version__,
            mode=self._config.daemon.mode,
            ready=True,
            engine_trusted=checkpoint.untrusted_engine is None,
            sources=dict(self._sources),
            pace=Pace(used=window.spent, limit=window.limit, window_s=float(window.length_s)),
            last_sweep=self._sweep,
            next_sweep=now.to_wall(next_sweep),
            gpus=build_gpu_statuses(report.decision.snapshot.gpu, self.status.gpus),
            slots=self._slots,
            uses=self._uses,
            without_devices=self._without_devices,
            inventory=checkpoint.inventory,
            readings_at=self._readings_at,
            drifts=tuple(
                DriftCount(kind=kind, outcome=outcome, count=count)
                for (kind, outcome), count in sorted(counts.items())
            ),
            findings=self._findings,
            freezes=tuple(
                freeze
                for freeze in checkpoint.freezes.values()
                if freeze.until is None or now.wall < freeze.until
            ),
            degraded=report.warnings,
            passes=self._passes,
            open_drifts=tuple(self._build_open_drifts(now)),
            state_dir=str(self._config.daemon.state_dir),
            unsaved=report.checkpoint_unsaved,
            warnings=docker.warnings if isinstance(docker, Engine) else self.status.warnings,
        )

    def dump_lines(self) -> Iterator[tuple[str, str]]:
        """The status as lines for the log: (subject, text)."""
        now = self.status.written_at
        yield "ds01d", format_summary(self.status, now)
        for source, answer in self.status.sources.items():
            yield f"source {source}", "ok" if answer.ok else answer.reason
        for slot in self.status.slots:
            holders = ", ".join(f"{h.container} ({h.shown_user}, {h.state})" for h in slot.holders)
            yield f"slot {slot.id}", holders or "free"
        for gated in self._list_drifts():
            drift, why = gated.drift, f": {gated.reason}" if gated.reason else ""
            about = f"{drift.container or ''} {drift.slot or ''}".strip()
            yield f"drift {drift.kind}", f"{about} {gated.outcome}{why}"
        for finding in self._findings:
            about = f"{finding.container or ''} {finding.slot or ''}".strip()
            yield f"finding {finding.kind}", f"{about}: {finding.reason}"

    def _update_sources(self, report: Report, now: Now) -> None:
        for source, answer in report.sources.items():
            ok, before = answer == "ok", self._sources.get(source)
            # Since when it is so, not since when it was last asked.
            since = before.since if before is not None and before.ok == ok else now.wall
            success = now.wall if ok else before.last_success if before is not None else None
            reason = "" if ok else answer
            self._sources[source] = SourceStatus(
                ok=ok, since=since, reason=reason, last_success=success
            )

    def _update_uses(self, report: Report) -> None:
        """Update which containers use which devices; without Docker the former ones stay."""
        snapshot = report.decision.snapshot
        # Decision 76: the last word about uses counts while Docker cannot be asked.
        if isinstance(snapshot.docker, Unknown):
            return
        self._uses = find_uses(snapshot, report.checkpoint, self._config)
        without = find_without_devices(snapshot, self._uses, self._config)
        self._without_devices = tuple(sorted(without))

    def _list_drifts(self) -> tuple[GatedDrift, ...]:
        return (*self._drifts.by_key.values(), *self._drifts.repaired)

    def _build_open_drifts(self, now: Now) -> Iterator[PublishedDrift]:
        """The open drifts, failed ones first, at most `MOST_DRIFTS`."""
        drifts = sorted(
            self._drifts.by_key.items(),
            key=lambda item: (item[1].outcome is not Outcome.FAILED, item[0]),
        )
        for key, gated in drifts[:MOST_DRIFTS]:
            drift = gated.drift
            yield PublishedDrift(
                kind=drift.kind,
                container=drift.container,
                slot=drift.slot,
                action=drift.action,
                outcome=gated.outcome,
                gate=gated.gate,
                difference=drift.reason,
                reason=gated.reason,
                first_seen=now.to_wall(self._drifts.first_seen[key]),
                until=now.to_wall(gated.until),
            )
