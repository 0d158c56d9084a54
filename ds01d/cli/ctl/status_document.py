"""The object that `ds01ctl status --json` prints, and the view that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.documents.checkpoint import freeze_document
from ds01d.documents.values import DisplayTime, Document, display_time
from ds01d.model.checkpoint import Freeze, Undone
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.status import (
    GpuStatus,
    Holder,
    SlotStatus,
    Status,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """The status that the daemon published last, and the slots from it or from the books.

    `daemon_problem`: why the daemon counts as not running, "" if it runs. `books_problem`: why the
    books cannot be read (by the daemon while it runs). `freezes`: those in force now. `undone`:
    what was undone and is not repaired again. `late_reason`: why a status that counts may be stale.
    """

    last: Status | None
    slots: tuple[SlotStatus, ...]
    freezes: tuple[Freeze, ...] = ()
    undone: tuple[tuple[str, Undone], ...] = ()
    daemon_problem: str = ""
    books_problem: str = ""
    late_reason: str = ""

    @property
    def daemon(self) -> Status | None:
        """The published status, while the daemon runs."""
        return None if self.daemon_problem else self.last

    @property
    def gpus(self) -> tuple[GpuStatus, ...]:
        """The GPUs, known from the daemon alone."""
        return () if self.daemon is None else self.daemon.gpus


def status_document(view: StatusView) -> dict[str, Document]:
    """The object that `status --json` prints; `alive` is false for an outdated status."""
    last = view.last
    return {
        "daemon": {
            "alive": not view.daemon_problem,
            "reason": view.daemon_problem or view.late_reason,
            **_daemon_document(last),
        },
        "books": {"ok": not view.books_problem, "reason": view.books_problem},
        "gpus": [_gpu_document(entry) for entry in view.gpus],
        "slots": [_slot_document(entry) for entry in view.slots],
        "sources": {
            source.value: {
                "ok": source_status.ok,
                "reason": source_status.reason,
                "since": DisplayTime(source_status.since),
                "last_success": display_time(source_status.last_success),
            }
            for source, source_status in (last.sources if last is not None else {}).items()
        },
        "drifts": [
            {"kind": d.kind.value, "verdict": d.outcome.value, "count": d.count}
            for d in (last.drifts if last is not None else ())
        ],
        "open_drifts": [
            {
                "kind": drift.kind.value,
                "container": drift.container,
                "slot": drift.slot,
                "action": drift.action.value,
                "verdict": drift.outcome.value,
                "gate": None if drift.gate is None else drift.gate.value,
                "reason": drift.shown_reason,
                "first_seen": display_time(drift.first_seen),
                "until": display_time(drift.until),
            }
            for drift in (last.open_drifts if last is not None else ())
        ],
        "findings": last.findings if last is not None else (),
        "fleet": None if last is None else _fleet_document(last.fleet),
        "freezes": [freeze_document(freeze) for freeze in view.freezes],
        "undone": [
            {
                "id": entry,
                "by": undone.by,
                "since": DisplayTime(undone.since),
                "subjects": undone.subjects,
            }
            for entry, undone in view.undone
        ],
    }


def _fleet_document(fleet: FleetStatus | None) -> Document:
    """How this host stands in a store that all hosts share; None without one."""
    if fleet is None:
        return None
    return {
        "state": fleet.state,
        "since": DisplayTime(fleet.since),
        "reason": fleet.reason,
        "node": fleet.node,
        "at": display_time(fleet.at),
        "cluster": fleet.cluster,
        "revision": fleet.revision,
        "entries": fleet.entries,
        "hosts": [
            {
                "host": host.host,
                "node": host.node,
                "version": host.version,
                "slots": host.slots,
                "unseen_since": display_time(host.unseen_since),
            }
            for host in fleet.hosts
        ],
        "drifts": [
            {
                "kind": drift.kind,
                "container": drift.container,
                "user": drift.user,
                "verdict": drift.outcome,
                "gate": drift.gate,
                "reason": "; ".join(filter(None, (drift.difference, drift.reason))),
                "first_seen": display_time(drift.first_seen),
            }
            for drift in fleet.drifts
        ],
        "findings": [
            {"kind": finding.kind, "subject": finding.subject, "reason": finding.reason}
            for finding in fleet.findings
        ],
    }


def _daemon_document(last: Status | None) -> Mapping[str, Document]:
    if last is None:
        return {}
    sweep = last.last_sweep
    return {
        "written_at": DisplayTime(last.written_at),
        "pid": last.pid,
        "version": last.version,
        "mode": last.mode,
        "ready": last.ready and not last.passes.failing,
        "passes": {
            "failing": last.passes.failing,
            "since": display_time(last.passes.failing_since),
            "reason": last.passes.reason,
            "failures": last.passes.failures,
            "last_success": display_time(last.passes.last_success),
        },
        "engine_trusted": last.engine_trusted,
        "degraded": last.degraded,
        "warnings": [
            {"kind": warning.kind.value, "reason": warning.text, "fix": warning.fix}
            for warning in last.warnings
        ],
        "last_sweep": DisplayTime(sweep.at) if sweep is not None else None,
        "last_sweep_duration_s": round(sweep.duration_s, 3) if sweep is not None else None,
        "next_sweep": display_time(last.next_sweep),
        "readings_at": display_time(last.readings_at),
        "pace": {
            "used": last.pace.used,
            "limit": last.pace.limit,
            "window_s": last.pace.window_s,
        },
    }


def _gpu_document(gpu: GpuStatus) -> Document:
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "mig": gpu.mig,
        "memory_used": gpu.memory_used,
        "memory_total": gpu.memory_total,
        "utilization": gpu.utilization,
        "temperature": gpu.temperature,
        "health": gpu.health,
    }


def _holder_document(holder: Holder) -> Document:
    # Decision 225: marked, so that no script takes a guess for the owner.
    return {
        "container": holder.container,
        "user": holder.user,
        "state": holder.state,
        "until": display_time(holder.until),
        "idle_since": display_time(holder.idle_since),
        "user_by": None if holder.user_by is None else holder.user_by.value,
        "user_is_guess": holder.is_guess,
        "processes": holder.processes,
        "memory_used": holder.memory_used,
    }


def _slot_document(slot: SlotStatus) -> Document:
    return {
        "slot": slot.id,
        "type": slot.type.value,
        "uuid": slot.uuid,
        "profile": slot.profile,
        "holders": [_holder_document(holder) for holder in slot.holders],
        "foreign": slot.foreign,
        "foreign_holders": [_holder_document(holder) for holder in slot.foreign_holders],
        "memory_used": slot.memory_used,
        "memory_total": slot.memory_total,
        "utilization": slot.utilization,
        "processes": slot.processes,
        "drifts": slot.drifts,
    }
