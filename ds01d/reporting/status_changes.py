"""The published status with what has changed since, where no pass gave another one."""

from __future__ import annotations

import msgspec

from ds01d.model.drift import Outcome
from ds01d.model.primitives import Source, Wall
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.status import PassHealth, PublishedDrift, SourceStatus, Status


def with_fleet(before: Status, fleet: FleetStatus, source: SourceStatus) -> Status:
    """The status with that of this host in its fleet, whose store is a source as well."""
    sources = {**before.sources, Source.FLEET: source}
    return msgspec.structs.replace(before, fleet=fleet, sources=sources)


def mark_passes_failing(
    before: Status, passes: PassHealth, now: Wall, next_sweep: Wall | None
) -> Status:
    """The status after a pass that failed as a whole: as before, but for its passes and drifts."""
    # Decision 131: drifts that only needed time are shown as failed while no pass succeeds.
    open_drifts = before.open_drifts
    if passes.failing:
        open_drifts = tuple(_mark_failed(drift, passes.reason) for drift in open_drifts)
    return msgspec.structs.replace(
        before, passes=passes, written_at=now, next_sweep=next_sweep, open_drifts=open_drifts
    )


def _mark_failed(drift: PublishedDrift, why: str) -> PublishedDrift:
    # Decision 131: what waits for a person does not fail with the passes.
    if drift.outcome is Outcome.FAILED or (
        drift.gate is not None and not drift.gate.ends_by_itself
    ):
        return drift
    return msgspec.structs.replace(
        drift, outcome=Outcome.FAILED, gate=None, reason=f"passes fail: {why}", until=None
    )
