"""Adds the open drifts that the daemon published to a dry pass that cannot know them.

A dry pass reads the checkpoint in `state_dir`, which is private: to a user who may not read it,
every wait would seem to begin now. Nor does the checkpoint record that a repair has just failed,
or that passes fail, in which case no drift is really due or waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ds01d.decide.decision import Decision
from ds01d.documents.sections import NOT_KNOWN
from ds01d.model.drift import Drift, DriftKey, GatedDrift, Outcome, WaitReason
from ds01d.model.holding import Free, Verdict
from ds01d.model.primitives import Boot, ContainerName, Now, Wall
from ds01d.reconcile.report import Report
from ds01d.reporting.status import PublishedDrift, Status
from ds01d.reporting.status_summary import describe_failing
from ds01d.text import format_span

_TIMED = frozenset({WaitReason.SETTLE, WaitReason.PROOF})


def with_published(report: Report, status: Status | None) -> Report:
    """`report` of a dry pass with what `status`, the status of a daemon that counts, knows better.

    That is a repair which failed, also because no pass works, and, where the checkpoint could not
    be read or is not the daemon's any more, every wait and every drift.
    """
    now, problem = report.decision.snapshot.now, _without_checkpoint(report, status)
    is_blind = bool(problem)
    published = {drift.key: drift for drift in status.open_drifts} if status is not None else {}
    drifts = tuple(
        _with_published_outcome(drift, published.get(drift.drift.key), now, is_blind=is_blind)
        for drift in report.drifts
    )
    if status is not None and status.passes.failing:
        # While passes fail nothing is repaired, whatever its wait.
        drifts = tuple(_mark_failed(drift, status.passes.reason) for drift in drifts)
        first = describe_failing(status.passes, now.wall)
        report = replace(report, warnings=(first, *report.warnings))
    if not is_blind:
        return replace(report, drifts=drifts)
    keys = {drift.drift.key for drift in drifts}
    drifts += tuple(
        _drift_from_published(drift, now) for key, drift in published.items() if key not in keys
    )
    verdicts = {
        name: _verdict_from_published(name, verdict, published, now)
        for name, verdict in report.decision.verdicts.items()
    }
    # The published waits replace what could not be read, so that warning is dropped.
    other_warnings = (drift for drift in report.warnings if drift != report.checkpoint_lost)
    decision: Decision = replace(report.decision, verdicts=verdicts)
    return replace(report, drifts=drifts, decision=decision, warnings=(*other_warnings, problem))


def _without_checkpoint(report: Report, status: Status | None) -> str:
    """Why the checkpoint is of no use for a dry pass, and whose waits it shows; "" if it does."""
    now = report.decision.snapshot.now.wall
    if report.checkpoint_lost:
        why = report.checkpoint_lost
        return f"the checkpoint cannot be read: {_describe_waits(status, now)} ({why})"
    if status is not None and status.unsaved:
        return f"the checkpoint is out of date: {_describe_waits(status, now)} ({status.unsaved})"
    return ""


def _with_published_outcome(
    gated: GatedDrift, published: PublishedDrift | None, now: Now, *, is_blind: bool
) -> GatedDrift:
    has_failed = published is not None and published.outcome is Outcome.FAILED
    if published is not None and (
        is_blind or (has_failed and (gated.gate is None or gated.gate in _TIMED))
    ):
        return replace(
            gated,
            outcome=published.outcome,
            gate=published.gate,
            reason=published.reason,
            until=_to_boot(published.until, now),
        )
    if is_blind and gated.gate in _TIMED:
        # Without the checkpoint every wait would seem to start now.
        return replace(gated, reason="when it was first seen is known only to ds01d", until=None)
    return gated


def _mark_failed(gated: GatedDrift, reason: str) -> GatedDrift:
    """A drift that is due, or will be: no pass works that would repair it."""
    if gated.outcome is Outcome.FAILED or (
        gated.gate is not None and not gated.gate.ends_by_itself
    ):
        return gated
    return replace(
        gated, outcome=Outcome.FAILED, gate=None, reason=f"passes fail: {reason}", until=None
    )


def _drift_from_published(published: PublishedDrift, now: Now) -> GatedDrift:
    """A drift that only the checkpoint shows: an identity, devices meant at the start."""
    drift = Drift(
        kind=published.kind,
        action=published.action,
        container=published.container,
        slot=published.slot,
        reason=published.difference,
        evidence=("published by ds01d",),
        fingerprint="",
    )
    until = _to_boot(published.until, now)
    return GatedDrift(
        drift=drift,
        outcome=published.outcome,
        gate=published.gate,
        reason=published.reason,
        until=until,
    )


def _verdict_from_published(
    name: ContainerName, verdict: Verdict, published: Mapping[DriftKey, PublishedDrift], now: Now
) -> Verdict:
    """A verdict that time decides, with the moment that the daemon goes by."""
    if not isinstance(verdict, Free) or verdict.due <= now.boot:
        return verdict
    drifts = [drift for drift in published.values() if drift.container == name]
    if any(
        drift.outcome is not Outcome.WAITING or drift.gate is not WaitReason.PROOF
        for drift in drifts
    ):
        # The absence is proven; what the drift waits for is something else.
        return replace(verdict, due=now.boot)  # it is proven, and waits for something else
    moments = [until for drift in drifts if (until := _to_boot(drift.until, now)) is not None]
    return replace(verdict, due=min(moments, default=NOT_KNOWN))


def _describe_waits(status: Status | None, now: Wall) -> str:
    if status is None:
        return "when waits end is unknown, since ds01d is not running"
    return f"showing the waits that ds01d published {format_span(now - status.written_at)} ago"


def _to_boot(moment: Wall | None, now: Now) -> Boot | None:
    return None if moment is None else Boot(now.boot + moment - now.wall)
