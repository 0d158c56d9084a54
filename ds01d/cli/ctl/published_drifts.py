"""What the daemon published of its open drifts, over a dry pass that cannot know it by itself.

A dry pass reads the checkpoint of `state_dir`, and that is private: whoever may not read it would
see every wait begin now, for ever. Nor is it in the checkpoint that a repair has just failed, or
that no pass works at all, so that whatever looks due or waiting is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ds01d.cli.ctl.explain_sections import NOT_KNOWN
from ds01d.decide.decision import Decision
from ds01d.model.drift import Drift, GatedDrift, Outcome, WaitReason
from ds01d.model.holding import Free, Verdict
from ds01d.model.primitives import Boot, ContainerName, Now, Wall
from ds01d.reconcile.reconciler import Report
from ds01d.reporting.status import PublishedDrift, Status, describe_failing, format_span

_TIMED = frozenset({WaitReason.SETTLE, WaitReason.PROOF})


def with_published(report: Report, last: Status | None) -> Report:
    """`report` of a dry pass with what `last`, the status of a daemon that counts, knows better.

    That is a repair which failed, also because no pass works, and, where the checkpoint could not
    be read or is not the daemon's any more, every wait and every drift.
    """
    now, trouble = report.decision.snapshot.now, _without_checkpoint(report, last)
    blind = bool(trouble)
    published = {one.key: one for one in last.open_drifts} if last is not None else {}
    drifts = tuple(
        _with_published_outcome(one, published.get(one.drift.key), now, blind=blind)
        for one in report.drifts
    )
    if last is not None and last.passes.failing:
        drifts = tuple(_mark_failed(one, last.passes.reason) for one in drifts)
        first = describe_failing(last.passes, now.wall)
        report = replace(report, troubles=(first, *report.troubles))
    if not blind:
        return replace(report, drifts=drifts)
    there = {one.drift.key for one in drifts}
    drifts += tuple(
        _drift_from_published(one, now) for key, one in published.items() if key not in there
    )
    verdicts = {
        name: _verdict_from_published(name, verdict, published, now)
        for name, verdict in report.decision.verdicts.items()
    }
    others = (one for one in report.troubles if one != report.memory_lost)
    decision: Decision = replace(report.decision, verdicts=verdicts)
    return replace(report, drifts=drifts, decision=decision, troubles=(*others, trouble))


def _without_checkpoint(report: Report, last: Status | None) -> str:
    """Why the checkpoint tells a dry pass nothing, and whose waits it shows; "" if it does."""
    now = report.decision.snapshot.now.wall
    if report.memory_lost:
        return f"the checkpoint cannot be read: {_describe_waits(last, now)} ({report.memory_lost})"
    if last is not None and last.unsaved:
        return f"the checkpoint is out of date: {_describe_waits(last, now)} ({last.unsaved})"
    return ""


def _with_published_outcome(
    one: GatedDrift, known: PublishedDrift | None, now: Now, *, blind: bool
) -> GatedDrift:
    failed = known is not None and known.outcome is Outcome.FAILED
    if known is not None and (blind or (failed and (one.gate is None or one.gate in _TIMED))):
        return replace(
            one,
            outcome=known.outcome,
            gate=known.gate,
            reason=known.reason,
            until=_to_boot(known.until, now),
        )
    if blind and one.gate in _TIMED:
        return replace(one, reason="since when it is seen is known to ds01d only", until=None)
    return one


def _mark_failed(one: GatedDrift, why: str) -> GatedDrift:
    """A drift that is due, or will be: no pass works that would repair it."""
    if one.outcome is Outcome.FAILED or (one.gate is not None and not one.gate.ends_by_itself):
        return one
    return replace(one, outcome=Outcome.FAILED, gate=None, reason=f"passes fail: {why}", until=None)


def _drift_from_published(known: PublishedDrift, now: Now) -> GatedDrift:
    """A drift that only the checkpoint shows: an identity, devices meant at the start."""
    drift = Drift(
        kind=known.kind,
        action=known.action,
        container=known.container,
        slot=known.slot,
        reason=known.difference,
        evidence=("published by ds01d",),
        fingerprint="",
    )
    until = _to_boot(known.until, now)
    return GatedDrift(
        drift=drift, outcome=known.outcome, gate=known.gate, reason=known.reason, until=until
    )


def _verdict_from_published(
    name: ContainerName, verdict: Verdict, published: Mapping[str, PublishedDrift], now: Now
) -> Verdict:
    """A verdict that time decides, with the moment that the daemon goes by."""
    if not isinstance(verdict, Free) or verdict.due <= now.boot:
        return verdict
    own = [one for one in published.values() if one.container == name]
    if any(one.outcome is not Outcome.WAITING or one.gate is not WaitReason.PROOF for one in own):
        return replace(verdict, due=now.boot)  # it is proven, and waits for something else
    moments = [until for one in own if (until := _to_boot(one.until, now)) is not None]
    return replace(verdict, due=min(moments, default=NOT_KNOWN))


def _describe_waits(last: Status | None, now: Wall) -> str:
    if last is None:
        return "when waits end is not known here, and there is no daemon that says so"
    return f"waits are those that ds01d published {format_span(now - last.written_at)} ago"


def _to_boot(moment: Wall | None, now: Now) -> Boot | None:
    return None if moment is None else Boot(now.boot + moment - now.wall)
