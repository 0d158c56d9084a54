"""What one pass saw, decided and did: for log, metrics, status and commands. A frozen value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ds01d.decide.decision import Decision
from ds01d.model.books import Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.drift import Finding, GatedDrift, Kind, Outcome
from ds01d.model.primitives import ContainerName, Source
from ds01d.text import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one pass saw, decided and did, for log, metrics and status.

    `is_applied`: whether repairs were made; False in a dry run and in mode observe.
    `warnings`: what failed beside the repairs (a log, the checkpoint). `checkpoint_lost`,
    `checkpoint_unsaved`, `history_failure`: the reason, or "". `duration_s` includes the sources.
    """

    decision: Decision
    drifts: tuple[GatedDrift, ...]
    checkpoint: Checkpoint
    is_applied: bool
    duration_s: float
    warnings: tuple[str, ...] = ()
    checkpoint_lost: str = ""
    checkpoint_unsaved: str = ""
    history_failure: str = ""

    @property
    def is_sweep(self) -> bool:
        return self.decision.snapshot.names is None

    def covers(self, name: ContainerName) -> bool:
        """Whether the pass looked at `name`: what it does not report of that container is gone."""
        # Also a name without a verdict: nothing is left of it.
        names = self.decision.snapshot.names
        return names is None or name in self.decision.verdicts or name in names

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.decision.findings

    @property
    def sources(self) -> Mapping[Source, str]:
        """Each source with "ok" or why it failed."""
        return self.decision.snapshot.sources()

    @property
    def failed_names(self) -> frozenset[ContainerName]:
        """The containers with a failed repair."""
        failed = (g.drift.container for g in self.drifts if g.outcome is Outcome.FAILED)
        return frozenset(name for name in failed if name is not None)

    @property
    def has_rebuilt_state(self) -> bool:
        """Nobody has decided yet about the bookings that are in the state now."""
        return any(
            gated.outcome is Outcome.DONE and gated.drift.kind is Kind.UNREADABLE_STATE
            for gated in self.drifts
        )

    @property
    def needed_sources_ok(self) -> bool:
        """Docker, NVML (if configured), state and metadata answered; no repair needs the others."""
        needed = {Source.DOCKER, Source.NVML, Source.STATE, Source.METADATA}
        failed = {source for source, answer in self.sources.items() if answer != "ok"} & needed
        # An unreadable state is what ds01d rebuilds, not a source that gave no answer.
        rebuilt = isinstance(self.decision.snapshot.state, Unreadable)
        return not failed or (rebuilt and failed == {Source.STATE})

    @property
    def is_consistent(self) -> bool:
        """No drift is open and every needed source answered. Findings do not count."""
        return self.needed_sources_ok and all(g.outcome is Outcome.DONE for g in self.drifts)


def join_reports(reports: Sequence[Report]) -> Report:
    """The reports of consecutive passes as one: the last, with the repairs of those before."""
    last = reports[-1]
    open_keys = {gated.drift.key for gated in last.drifts}
    # Repairs of earlier passes are gone from the last report, but the caller asked for all.
    done = {
        gated.drift.key: gated
        for report in reports[:-1]
        for gated in report.drifts
        if gated.outcome is Outcome.DONE and gated.drift.key not in open_keys
    }
    warnings = dict.fromkeys(warning for report in reports for warning in report.warnings)
    return replace(last, drifts=(*done.values(), *last.drifts), warnings=tuple(warnings))


def summarize_outcomes(outcomes: Iterable[Outcome]) -> str:
    """'3 drifts: 1 due, 2 waiting'."""
    counts = Counter(outcomes)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    return format_count(counts.total(), "drift") + (f": {parts}" if parts else "")
