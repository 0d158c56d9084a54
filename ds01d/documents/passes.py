"""The report of a pass as a document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ds01d.config import Config
from ds01d.documents.values import DisplayTime, DocumentPart, display_boot
from ds01d.model.drift import Action, Finding, GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.primitives import ContainerName, Now, SlotId, Source
from ds01d.reconcile.report import Report, summarize_outcomes
from ds01d.reconcile.settling import PassWait

_MOST_NAMED = 3


class BookingDocument(DocumentPart, frozen=True):
    """A container in a slot."""

    container: ContainerName
    slot: SlotId


class DriftDocument(DocumentPart, frozen=True):
    """A drift with its outcome and wait reason."""

    kind: Kind
    container: ContainerName | None
    slot: SlotId | None
    action: Action
    verdict: Outcome
    reason: str
    gate: WaitReason | None
    until: DisplayTime | None
    taken: tuple[BookingDocument, ...]
    given: tuple[BookingDocument, ...]
    evidence: tuple[str, ...]


class PassDocument(DocumentPart, frozen=True):
    """The object that `plan --json` and `reconcile --json` print.

    `sources`: each with "ok" or why it failed. `sources_ok`: those that repairs need answered.
    """

    consistent: bool
    sources_ok: bool
    mode: Literal["repair", "observe"]
    at: DisplayTime
    sources: dict[str, str]
    drifts: tuple[DriftDocument, ...]
    findings: tuple[Finding, ...]
    troubles: tuple[str, ...]
    duration_s: float


def build_pass_document(report: Report, config: Config) -> PassDocument:
    now = report.decision.snapshot.now
    return PassDocument(
        consistent=report.is_consistent,
        sources_ok=report.needed_sources_ok,
        mode=config.daemon.mode,
        at=DisplayTime(now.wall),
        sources=describe_sources(report, config),
        drifts=tuple(build_drift_document(gated, now) for gated in report.drifts),
        findings=report.findings,
        troubles=report.warnings,
        duration_s=round(report.duration_s, 3),
    )


def describe_sources(report: Report, config: Config) -> dict[str, str]:
    """Each source with "ok" or why it failed."""
    unused = {Source.NVML: 'not used (gpu.source = "none")'} if config.gpu.source == "none" else {}
    return {
        source.value: "ok" if source in unused else state
        for source, state in report.sources.items()
    }


def build_drift_document(gated: GatedDrift, now: Now) -> DriftDocument:
    drift = gated.drift
    return DriftDocument(
        kind=drift.kind,
        container=drift.container,
        slot=drift.slot,
        action=drift.action,
        verdict=gated.outcome,
        # What differs, and why it waits or failed.
        reason="; ".join(dict.fromkeys(part for part in (drift.reason, gated.reason) if part)),
        gate=gated.gate,
        until=display_boot(gated.until, now),
        taken=_build_bookings(drift.taken),
        given=_build_bookings(drift.given),
        evidence=drift.evidence,
    )


def describe_wait(wait: PassWait) -> str:
    """Until when, and for what: "2 drifts: 1 waiting, 1 failed: stale-allocation a (proof), …"."""
    outcomes = summarize_outcomes(gated.outcome for gated in wait.drifts)
    descriptions = ", ".join(_describe_drift(gated) for gated in wait.drifts[:_MOST_NAMED])
    more = ", …" if len(wait.drifts) > _MOST_NAMED else ""
    until = DisplayTime(wait.until).to_local()
    return f"waiting until {until} (Ctrl-C ends it): {outcomes}: {descriptions}{more}"


def _describe_drift(gated: GatedDrift) -> str:
    subject = gated.drift.container or gated.drift.slot or ""
    why = f"failed: {gated.reason}" if gated.outcome is Outcome.FAILED else gated.gate
    return f"{gated.drift.kind} {subject} ({why})"


def _build_bookings(pairs: Iterable[tuple[ContainerName, SlotId]]) -> tuple[BookingDocument, ...]:
    return tuple(BookingDocument(container=name, slot=slot) for name, slot in sorted(pairs))
