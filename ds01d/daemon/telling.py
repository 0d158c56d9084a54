"""What passes tell people through the log: each thing when it begins and when it ends, once.

A reader of reports. It decides nothing, and a log that fails stops nothing.
"""

from __future__ import annotations

import structlog

from ds01d.model.drift import Finding, Gate, Gated, Outcome
from ds01d.model.facts import Source
from ds01d.ops.message_ids import Event
from ds01d.reconcile.passes import Report

_WORTH_TELLING = frozenset({Gate.FREEZE, Gate.ENGINE, Gate.BACKOFF, Gate.BLOCKED})
_Key = tuple[str, str, str]


class Teller:
    """Compares each report with what was told before, and logs the difference."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._down: dict[Source, float] = {}
        self._drifts: dict[str, str] = {}
        self._findings: dict[_Key, Finding] = {}
        self._troubles: frozenset[str] = frozenset()
        self._no_history = ""
        self._paced = False
        self._stranger = False
        self._inventory: float | None = None

    def tell(self, report: Report) -> None:
        self._sources(report)
        self._drift(report)
        if report.sweep and report.needed_sources_answer:
            self._finding(report)
        self._host(report)
        self._trouble(report)

    def tell_done(self, report: Report) -> None:
        """Only what was settled: for a pass in whose midst the daemon was told to stop."""
        for one in report.drifts:
            if one.outcome is Outcome.DONE:
                self._one(Event.DRIFT_SETTLED, one, one.drift.reason)

    def _sources(self, report: Report) -> None:
        now = report.decision.seen.now.boot
        for source, said in report.sources.items():
            if said != "ok" and source not in self._down:
                self._down[source] = now
                self._log.warning(Event.SOURCE_DOWN, source=source, reason=said)
            elif said == "ok" and source in self._down:
                seconds = round(now - self._down.pop(source))
                self._log.info(Event.SOURCE_UP, source=source, seconds=seconds)

    def _drift(self, report: Report) -> None:
        there = {one.drift.key for one in report.drifts}
        covered = report.decision.verdicts
        for key in [k for k in self._drifts if k not in there]:
            if report.sweep or key.split("|")[1] in covered:
                del self._drifts[key]
        for one in report.drifts:
            key, said = one.drift.key, _said(one)
            before = self._drifts.get(key)
            self._drifts[key] = said
            if before is None:
                self._one(Event.DRIFT_FOUND, one, one.drift.reason)
            if before == said:
                continue
            if one.outcome is Outcome.DONE:
                self._one(Event.DRIFT_SETTLED, one, one.drift.reason)
                del self._drifts[key]
            elif one.outcome is Outcome.FAILED:
                self._one(Event.DRIFT_FAILED, one, one.reason)
            elif one.outcome is Outcome.HELD and one.gate in _WORTH_TELLING:
                self._one(Event.DRIFT_HELD, one, one.reason)

    def _one(self, event: Event, one: Gated, reason: str) -> None:
        self._log.info(
            event,
            drift=one.drift.kind,
            container=one.drift.container,
            slot=one.drift.slot,
            action=one.drift.action,
            verdict=one.outcome,
            gate=one.gate,
            reason=reason,
            evidence=list(one.drift.evidence),
        )

    def _finding(self, report: Report) -> None:
        now = {_key(finding): finding for finding in report.findings}
        for key, finding in now.items():
            if key not in self._findings:
                self._found(Event.FINDING_NEW, finding)
        for key, finding in self._findings.items():
            if key not in now:
                self._found(Event.FINDING_GONE, finding)
        self._findings = now

    def _found(self, event: Event, finding: Finding) -> None:
        self._log.info(
            event,
            finding=finding.kind,
            container=finding.container,
            slot=finding.slot,
            reason=finding.reason,
        )

    def _host(self, report: Report) -> None:
        """The engine, the inventory and the pace: what holds everything."""
        memory = report.memory
        stranger = memory.stranger
        if stranger is not None and not self._stranger:
            reason = f"{stranger.id[:12]} at {stranger.root_dir}"
            self._log.error(Event.ENGINE_CHANGED, reason=reason)
        self._stranger = stranger is not None
        if memory.inventory_changed not in (None, self._inventory):
            self._log.warning(Event.INVENTORY_CHANGED)
        self._inventory = memory.inventory_changed
        paced = [one for one in report.drifts if one.gate is Gate.PACE]
        if paced and not self._paced:
            reason = paced[0].reason
            self._log.error(Event.PACE_REACHED, released=len(memory.released), reason=reason)
        self._paced = bool(paced)

    def _trouble(self, report: Report) -> None:
        if report.memory_lost:
            self._log.warning(Event.MEMORY_LOST, reason=report.memory_lost)
        if report.no_history and report.no_history != self._no_history:
            self._log.error(Event.HISTORY_FAILED, reason=report.no_history)
        self._no_history = report.no_history
        troubles = frozenset(report.troubles) - {report.memory_lost}
        for trouble in sorted(troubles - self._troubles):
            self._log.warning(Event.LOG_FAILED, reason=trouble)
        self._troubles = troubles


def _said(one: Gated) -> str:
    return f"{one.outcome}|{one.gate}|{one.drift.fingerprint}"


def _key(finding: Finding) -> _Key:
    return (finding.kind.value, finding.container or "", finding.slot or "")
