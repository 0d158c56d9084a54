"""Logs the reports of passes: each condition once when it begins and once when it ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

import structlog

from ds01d.config import Policy
from ds01d.daemon.drift_log import DriftLog
from ds01d.daemon.flap_filter import FlapFilter
from ds01d.decide.engine_identity import describe_engine, engine_differences
from ds01d.decide.freezes import is_in_force
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Engine, EngineIdentity
from ds01d.model.drift import Finding, FindingKind, Outcome, WaitReason
from ds01d.model.primitives import Boot, Wall
from ds01d.reconcile.report import Report
from ds01d.reporting.message_ids import Event

SLOW_S: Final = 10.0
# No report shows that a warning is over: it counts as over when it has not come for ten minutes.
_WARNING_QUIET_S: Final = 600.0
_BY_SLOT: Final = frozenset({FindingKind.FOREIGN_USE, FindingKind.ROGUE_PROCESS})
_ONLY_AT_BEGIN: Final = frozenset({"exc_info", "effect"})
_Keys = Mapping[str, object]


class ReportLogger:
    """Compares each report with what was logged before, and logs the difference."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._passes = _Conditions(Event.PASS_FAILED, Event.PASS_WORKS)
        self._slow = _Conditions(Event.PASS_SLOW, Event.PASS_QUICK)
        self._sources = _Conditions(Event.SOURCE_DOWN, Event.SOURCE_UP)
        self._findings = _Conditions(Event.FINDING_NEW, Event.FINDING_GONE)
        self._engine = _Conditions(Event.ENGINE_CHANGED, Event.ENGINE_TRUSTED)
        self._engine_warnings = _Conditions(Event.ENGINE_WARNING, Event.ENGINE_WARNING_OVER)
        self._inventory = _Conditions(Event.INVENTORY_CHANGED, Event.INVENTORY_STEADY)
        self._pace = _Conditions(Event.PACE_REACHED, Event.PACE_OVER)
        self._freezes = _Conditions(Event.FREEZE_SET, Event.FREEZE_OVER)
        self._history = _Conditions(Event.HISTORY_FAILED, Event.HISTORY_WORKS)
        self._checkpoint = _Conditions(Event.CHECKPOINT_LOST, None)
        self._warnings = _Conditions(Event.DEGRADED_BEGIN, Event.DEGRADED_OVER, _WARNING_QUIET_S)
        self._drifts = DriftLog()

    def log_report(self, report: Report, policy: Policy) -> None:
        """Log the report of a pass."""
        now = report.decision.snapshot.now.boot
        # Decision 97: a pass over names proves nothing of what made a sweep fail.
        self._passes.update({}, now, whole=report.is_sweep)
        slow = report.duration_s > SLOW_S
        took = {"": {"seconds": round(report.duration_s, 1)}} if slow else {}
        self._slow.update(took, now, whole=report.is_sweep)
        down = {
            source: {"source": source, "reason": answer}
            for source, answer in report.sources.items()
            if answer != "ok"
        }
        self._sources.update(down, now)
        self._log_host_conditions(report, policy, now)
        self._drifts.log_report(report, policy, now)
        # While a source fails, what it would show is not found, which is not the same as gone.
        if report.is_sweep and report.needed_sources_ok:
            self._findings.update(_key_findings(report.findings), now)
        self._log_warnings(report, now)

    def log_repairs(self, report: Report) -> None:
        """Log only the repairs: for a pass that SIGTERM interrupted."""
        self._drifts.log_repairs(report)

    def log_failed_pass(self, error: Exception, now: Boot, *, expected: bool) -> None:
        """A pass failed as a whole; `expected`: by an error of ours, whose text is enough."""
        keys: dict[str, object] = {"reason": str(error) or type(error).__name__}
        if not expected:
            keys["exc_info"] = error
        self._passes.update({expected: keys}, now, whole=False)

    def log_warning(self, reason: str, now: Boot) -> None:
        """Log a failure outside of a pass that stops no repair."""
        self._warnings.update({_strip_numbers(reason): {"reason": reason}}, now, whole=False)

    def _log_host_conditions(self, report: Report, policy: Policy, now: Boot) -> None:
        """Log what affects many drifts at once: engine, inventory, pace, freezes."""
        checkpoint = report.checkpoint
        changed_engine: dict[Hashable, _Keys] = {}
        if checkpoint.untrusted_engine is not None:
            changed_engine[checkpoint.untrusted_engine] = {
                "reason": _describe_engine_change(checkpoint, checkpoint.untrusted_engine)
            }
        self._engine.update(changed_engine, now)
        docker = report.decision.snapshot.docker
        if isinstance(docker, Engine):
            warned = {
                item.kind: {"warning": item.kind, "reason": f"{item.text}; fix: {item.fix}"}
                for item in docker.warnings
            }
            self._engine_warnings.update(warned, now)
        changed = checkpoint.inventory_changed
        # Logged once for all drifts that wait for it, not as the reason of each.
        unsteady = changed is not None and now < changed + policy.freeze_s
        self._inventory.update({"": {}} if unsteady else {}, now)
        paced = [item for item in report.drifts if item.gate is WaitReason.PACE]
        counts = {"released": len(checkpoint.released), "count": len(paced)}
        self._pace.update(
            {"": counts | {"reason": paced[0].reason}} if paced else {}, now, whole=report.is_sweep
        )
        self._freezes.update(
            {
                freeze.subject: {
                    "subject": "everything" if freeze.subject == "*" else freeze.subject,
                    "by": freeze.by,
                    "until": freeze.until and _format_local(freeze.until),
                    "reason": freeze.reason,
                }
                for freeze in checkpoint.freezes.values()
                if is_in_force(freeze, report.decision.snapshot.now)
            },
            now,
        )

    def _log_warnings(self, report: Report, now: Boot) -> None:
        lost, no_history = report.checkpoint_lost, report.history_failure
        self._checkpoint.update({"": {"reason": lost}} if lost else {}, now)
        tried = bool(no_history) or any(gated.outcome is Outcome.DONE for gated in report.drifts)
        self._history.update({"": {"reason": no_history}} if no_history else {}, now, whole=tried)
        effect = _describe_effect(report)
        self._warnings.update(
            {
                _strip_numbers(warning): {"reason": warning, "effect": effect}
                for warning in report.warnings
                if warning != lost
            },
            now,
        )


class _Conditions:
    """Conditions of one kind, logged by one event when they begin and one when they end."""

    def __init__(self, begin: Event, end: Event | None, quiet_s: float = 0.0) -> None:
        self._log = structlog.get_logger()
        self._begin, self._end = begin, end
        self._flaps: FlapFilter[Hashable] = FlapFilter(quiet_s)
        self._logged_keys: dict[Hashable, _Keys] = {}

    def update(self, present: Mapping[Any, _Keys], now: Boot, *, whole: bool = True) -> None:
        """Note the conditions present now; `whole`: all others are absent."""
        for key in self._flaps.begin_present(present.keys(), now):
            self._logged_keys[key] = present[key]
            self._log.info(self._begin, **present[key])
        for over in self._flaps.end_absent(present.keys(), now) if whole else ():
            keys = {
                k: v
                for k, v in self._logged_keys.pop(over.key, {}).items()
                if k not in _ONLY_AT_BEGIN
            }
            if self._end is not None:
                again = {"times": over.times} if over.times > 1 else {}
                self._log.info(self._end, **(keys | {"seconds": round(over.seconds)} | again))


def _describe_effect(report: Report) -> str:
    """Whether repairs go on in spite of the warnings."""
    if report.history_failure:
        return "nothing is repaired, because the history cannot be written"
    if report.checkpoint_unsaved:
        return "a repair is made only if the history can be written"
    return "repairs go on"


def _key_findings(findings: Collection[Finding]) -> dict[Hashable, _Keys]:
    """Findings by what identifies them over passes."""
    # Decision 32: use of a slot by its slot, not by the container, which may change every minute.
    repeats: Counter[Hashable] = Counter()
    conditions: dict[Hashable, _Keys] = {}
    for finding in findings:
        container = None if finding.kind in _BY_SLOT else finding.container
        key = (finding.kind, container, finding.slot)
        conditions[key, repeats[key]] = {
            "finding": finding.kind,
            "container": finding.container,
            "slot": finding.slot,
            "reason": finding.reason,
        }
        repeats[key] += 1
    return conditions


def _describe_engine_change(checkpoint: Checkpoint, answers: EngineIdentity) -> str:
    """The engine that answers, and how it differs from the trusted one."""
    trusted = checkpoint.engine or answers
    changes = ", ".join(engine_differences(trusted, answers, same_boot=True))
    return f"{describe_engine(answers)}: {changes}"


def _strip_numbers(text: str) -> str:
    """The text without process IDs, sizes and times, as the identity of a warning."""
    # The same failure of another process or moment must not be logged as a new one.
    return re.sub(r"[0-9]+", "", text)


def _format_local(at: Wall) -> str:
    return datetime.fromtimestamp(at, timezone.utc).astimezone().isoformat(timespec="seconds")
