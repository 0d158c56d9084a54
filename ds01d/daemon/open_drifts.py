"""The drifts of the whole host, merged from the reports of sweeps and of passes over names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.model.drift import DriftKey, GatedDrift, Outcome
from ds01d.model.primitives import Boot
from ds01d.reconcile.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDrifts:
    """Every drift that is not repaired, as the last pass over it left it. Begins with none.

    `first_seen`: of each open drift, by this process or by the checkpoint.
    `repaired`: the drifts that the last pass repaired.
    """

    by_key: Mapping[DriftKey, GatedDrift] = field(default_factory=dict)
    first_seen: Mapping[DriftKey, Boot] = field(default_factory=dict)
    repaired: tuple[GatedDrift, ...] = ()

    def merge(self, report: Report) -> OpenDrifts:
        """These drifts after another pass: what it looked at and did not report is gone."""
        # A part is not the whole: of what a partial pass did not look at, nothing is known to be
        # gone.
        by_key = {
            key: gated for key, gated in self.by_key.items() if not report.covers(key.container)
        }
        # One by one: a slot that moves away and the new one at its place have the same key.
        for gated in report.drifts:
            if gated.outcome is Outcome.DONE:
                by_key.pop(gated.drift.key, None)
            else:
                by_key[gated.drift.key] = gated
        repaired = tuple(gated for gated in report.drifts if gated.outcome is Outcome.DONE)
        now, sightings = report.decision.snapshot.now.boot, report.checkpoint.sightings
        first_seen = {}
        for key in by_key:
            # A drift whose evidence changes has a new sighting, but is open for as long as before.
            first_seen[key] = self.first_seen.get(key, now)
            if key in sightings:
                first_seen[key] = min(first_seen[key], sightings[key].first)
        return OpenDrifts(by_key=by_key, first_seen=first_seen, repaired=repaired)
