"""Builds the published status from reports: status.json, STATUS=, and the dump of SIGUSR1.

A sweep replaces all of it, a pass over names only what it saw. Decides nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator

from ds01d import __version__
from ds01d.config import Config
from ds01d.daemon.books_watch import Bookings
from ds01d.daemon.device_readings import build_gpu_statuses, index_devices_by_uuid
from ds01d.decide.gate import pace_limit
from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import find_uses, find_without_devices, users_by_slot
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Engine
from ds01d.model.drift import DriftKey, Finding, GatedDrift, Outcome
from ds01d.model.holding import Holds, Verdict
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, Source, Unknown, Wall
from ds01d.model.usage import DeviceUse
from ds01d.reconcile.reconciler import Report
from ds01d.reporting import status
from ds01d.reporting.status import (
    MOST_DRIFTS,
    DriftCount,
    Holder,
    Pace,
    PassHealth,
    PublishedDrift,
    SlotStatus,
    SourceStatus,
    Status,
    Sweep,
)


class StatusBuilder:
    """Collects reports, and builds the status from them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._verdicts: dict[ContainerName, Verdict] = {}
        self._drifts: dict[DriftKey, GatedDrift] = {}
        self._findings: tuple[Finding, ...] = ()
        self._sources: dict[Source, SourceStatus] = {}
        self._sweep: Sweep | None = None
        self._slots: tuple[SlotStatus, ...] = ()
        self._uses: tuple[DeviceUse, ...] = ()
        self._without_devices: tuple[str, ...] = ()
        self._pending_report: Report | None = None
        self._passes = PassHealth()
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
        """A report was added that is not in the status yet."""
        return self._pending_report is not None

    def add_report(self, report: Report) -> None:
        """Add the report of a pass; cheap."""
        now = report.decision.snapshot.now
        self._pending_report = report
        if report.is_sweep or not self.is_failing:  # a pass over names proves nothing of a sweep
            self._passes = PassHealth(last_success=now.wall)
        self._update_sources(report, now)
        self._update_drifts(report)
        if report.is_sweep:
            self._sweep = Sweep(at=now.wall, duration_s=round(report.duration_s, 3))
            self._findings = report.findings

    def build(self, next_sweep: Boot | None, now: Now) -> Status:
        """The status of all reports so far."""
        report, self._pending_report = self._pending_report, None
        if report is None:
            self.status = status.mark_passes_failing(
                self.status, self._passes, now.wall, _to_wall(next_sweep, now)
            )
            return self.status
        view, memory, policy = report.decision.index, report.checkpoint, self._config.policy
        self._update_uses(report)
        if view is not None:
            self._slots = self._build_slots(view, report.drifts, now)
        recent = [at for at in memory.released if at > now.boot - policy.pace_window_s]
        bookings = sum(len(slot.holders) for slot in self._slots)
        docker = report.decision.snapshot.docker
        counts = Counter((gated.drift.kind, gated.outcome) for gated in self._drifts.values())
        self.status = Status(
            written_at=now.wall,
            pid=os.getpid(),
            version=__version__,
            mode=self._config.daemon.mode,
            ready=True,
            engine_trusted=memory.stranger is None,
            sources=dict(self._sources),
            pace=Pace(
                used=len(recent),
                limit=pace_limit(policy, bookings + len(recent)),
                window_s=float(policy.pace_window_s),
            ),
            last_sweep=self._sweep,
            next_sweep=_to_wall(next_sweep, now),
            gpus=build_gpu_statuses(report.decision.snapshot.gpu, self.status.gpus),
            slots=self._slots,
            uses=self._uses,
            without_devices=self._without_devices,
            inventory=memory.inventory,
            drifts=tuple(
                DriftCount(kind=kind, outcome=outcome, count=count)
                for (kind, outcome), count in sorted(counts.items())
            ),
            findings=self._findings,
            freezes=tuple(
                freeze
                for freeze in memory.freezes.values()
                if freeze.until is None or now.wall < freeze.until
            ),
            degraded=report.warnings,
            passes=self._passes,
            open_drifts=tuple(self._build_open_drifts(memory, now)),
            state_dir=str(self._config.daemon.state_dir),
            unsaved=report.checkpoint_unsaved,
            warnings=docker.warnings if isinstance(docker, Engine) else self.status.warnings,
        )
        return self.status

    def dump_lines(self) -> Iterator[tuple[str, str]]:
        """The status as lines for the log: (subject, text)."""
        now = self.status.written_at
        yield "ds01d", status.format_summary(self.status, now)
        for source, answer in self.status.sources.items():
            yield f"source {source}", "ok" if answer.ok else answer.reason
        for slot in self.status.slots:
            holders = ", ".join(f"{h.container} ({h.user}, {h.state})" for h in slot.holders)
            yield f"slot {slot.id}", holders or "free"
        for gated in self._drifts.values():
            drift, why = gated.drift, f": {gated.reason}" if gated.reason else ""
            about = f"{drift.container or ''} {drift.slot or ''}".strip()
            yield f"drift {drift.kind}", f"{about} {gated.outcome}{why}"
        for finding in self._findings:
            about = f"{finding.container or ''} {finding.slot or ''}".strip()
            yield f"finding {finding.kind}", f"{about}: {finding.reason}"

    def _update_sources(self, report: Report, now: Now) -> None:
        for source, answer in report.sources.items():
            ok, before = answer == "ok", self._sources.get(source)
            since = before.since if before is not None and before.ok == ok else now.wall
            success = now.wall if ok else before.last_success if before is not None else None
            reason = "" if ok else answer
            self._sources[source] = SourceStatus(
                ok=ok, since=since, reason=reason, last_success=success
            )

    def _update_uses(self, report: Report) -> None:
        """Update which containers use which devices; without Docker the former ones stay."""
        snapshot = report.decision.snapshot
        if isinstance(snapshot.docker, Unknown):
            return
        self._uses = find_uses(snapshot, report.checkpoint, self._config)
        without = find_without_devices(snapshot, self._uses, self._config)
        self._without_devices = tuple(sorted(without))

    def _update_drifts(self, report: Report) -> None:
        covered = report.decision.verdicts
        self._drifts = {
            key: gated
            for key, gated in self._drifts.items()
            if not report.is_sweep
            and gated.outcome is not Outcome.DONE
            and key.container not in covered
        }
        self._drifts |= {gated.drift.key: gated for gated in report.drifts}
        if report.is_sweep:
            self._verdicts.clear()
        self._verdicts |= covered

    def _build_slots(
        self, view: BooksIndex, drifts: Iterable[GatedDrift], now: Now
    ) -> tuple[SlotStatus, ...]:
        """The slots after the repairs of the pass."""
        bookings: dict[SlotId, dict[ContainerName, None]] = {
            slot.id: dict.fromkeys(slot.containers) for slot in view.table.slots.values()
        }
        done = [gated.drift for gated in drifts if gated.outcome is Outcome.DONE]
        for name, slot in (pair for drift in done for pair in drift.taken):
            bookings.get(slot, {}).pop(name, None)
        for name, slot in (pair for drift in done for pair in drift.given):
            bookings.get(slot, {})[name] = None
        moved = frozenset().union(*(drift.names for drift in done if drift.renamed_to))
        slots = {
            slot.id: (view.table.device_of.get(slot.id), tuple(bookings[slot.id]))
            for slot in view.table.slots.values()
        }
        foreign = users_by_slot(self._uses, slots, view.snapshot.gpu)
        devices_by_uuid = index_devices_by_uuid(view.snapshot.gpu)
        open_drifts = [
            gated for gated in self._drifts.values() if gated.outcome is not Outcome.DONE
        ]
        return tuple(
            SlotStatus(
                id=slot.id,
                type=slot.type,
                uuid=view.table.device_of.get(slot.id),
                profile=slot.profile,
                holders=tuple(
                    self._build_holder(name, view, now, moved=name in moved)
                    for name in bookings[slot.id]
                ),
                foreign=foreign.get(slot.id, ()),
                memory_used=device.memory_used if device is not None else None,
                memory_total=device.memory_total if device is not None else None,
                drifts=tuple(_describe_slot_drifts(slot.id, bookings[slot.id], open_drifts)),
            )
            for slot in view.table.slots.values()
            for device in (devices_by_uuid.get(view.table.device_of.get(slot.id)),)
        )

    def _build_holder(
        self, name: ContainerName, view: BooksIndex, now: Now, *, moved: bool
    ) -> Holder:
        container, verdict = view.find_container(name), self._verdicts.get(name)
        state = container.state.value if container is not None else "absent"
        until = verdict.until if isinstance(verdict, Holds) else None
        return Holder(
            container=name,
            user=view.find_user(name) if moved else view.find_booker(name),
            state=state if view.engine is not None else "unknown",
            until=_to_wall(until, now),
        )

    def _build_open_drifts(self, memory: Checkpoint, now: Now) -> Iterator[PublishedDrift]:
        """The open drifts, failed ones first, at most `MOST_DRIFTS`."""
        open_drifts = [
            gated for gated in self._drifts.values() if gated.outcome is not Outcome.DONE
        ]
        open_drifts.sort(key=lambda gated: (gated.outcome is not Outcome.FAILED, gated.drift.key))
        for gated in open_drifts[:MOST_DRIFTS]:
            drift, first_seen = gated.drift, memory.sightings.get(gated.drift.key)
            yield PublishedDrift(
                kind=drift.kind,
                container=drift.container,
                slot=drift.slot,
                action=drift.action,
                outcome=gated.outcome,
                gate=gated.gate,
                difference=drift.reason,
                reason=gated.reason,
                first_seen=None if first_seen is None else _to_wall(first_seen.first, now),
                until=_to_wall(gated.until, now),
            )


def _to_wall(moment: Boot | None, now: Now) -> Wall | None:
    """A moment of CLOCK_BOOTTIME on the wall clock."""
    return None if moment is None else Wall(now.wall + moment - now.boot)


def _describe_slot_drifts(
    slot: SlotId, holders: Iterable[ContainerName], drifts: Iterable[GatedDrift]
) -> Iterator[str]:
    """The drifts of a slot, and those of its holders that name no other."""
    names = frozenset(holders)
    for gated in drifts:
        drift = gated.drift
        if drift.slot == slot or (drift.slot is None and drift.container in names):
            yield f"{drift.kind} {gated.outcome}"
