"""The report of a pass as tables, and as exit code."""

from __future__ import annotations

from collections.abc import Iterable

from ds01d.cli.base.command import CONSISTENT, DRIFT, ERROR
from ds01d.cli.output.blocks import Block, Sentence, Table, Title, Tone, Toned
from ds01d.documents.passes import DriftDocument, PassDocument
from ds01d.model.drift import Finding, Outcome
from ds01d.reconcile.report import summarize_outcomes
from ds01d.text import format_count

TONES = {
    Outcome.DUE: Tone.WARN,
    Outcome.WAITING: Tone.PLAIN,
    Outcome.DONE: Tone.GOOD,
    Outcome.FAILED: Tone.BAD,
}
_COLUMNS = ("kind", "container", "slot", "action", "verdict", "until", "reason")


def exit_code(report: PassDocument) -> int:
    """0: nothing due, waiting or failed. 2: something is. 1: a needed source failed."""
    if not report.sources_ok:
        return ERROR
    # Drift is 2 and not 1, so that cron can distinguish it from an error (decision 20).
    return CONSISTENT if report.consistent else DRIFT


def report_blocks(report: PassDocument, *, verbose: bool = False) -> Iterable[Block]:
    """The report for people. `verbose`: with the evidence."""
    yield from warning_sentences(report.troubles)
    if report.drifts:
        yield drift_table(report.drifts, verbose=verbose)
    if report.findings:
        yield Title("findings")
        yield finding_table(report.findings)
    if report.drifts or report.findings:
        yield Sentence("")
    for source, state in report.sources.items():
        if state != "ok":
            yield Sentence(
                f"{source} failed: {state}; nothing that depends on it is changed", Tone.BAD
            )
    yield _summary_sentence(report)
    if report.mode == "observe" and report.drifts:
        yield Sentence('daemon.mode = "observe": nothing is repaired', Tone.WARN)


def warning_sentences(warnings: Iterable[str]) -> Iterable[Sentence]:
    """Warnings, which come first since they put the rest in doubt."""
    for warning in warnings:
        yield Sentence(f"warning: {warning}", Tone.BAD)


def drift_table(drifts: Iterable[DriftDocument], *, verbose: bool = False) -> Table:
    """Drifts, a row each; `verbose` with their evidence below."""
    drifts = tuple(drifts)
    rows = [
        (
            drift.kind,
            drift.container,
            drift.slot,
            drift.action,
            Toned(drift.verdict, TONES[drift.verdict]),
            drift.until,
            drift.reason,
        )
        for drift in drifts
    ]
    return Table(_COLUMNS, rows, [drift.evidence for drift in drifts] if verbose else [])


def finding_table(findings: Iterable[Finding]) -> Table:
    """Findings, a row each."""
    rows = [(finding.kind, finding.container, finding.slot, finding.reason) for finding in findings]
    return Table(("kind", "container", "slot", "reason"), rows)


def _summary_sentence(report: PassDocument) -> Sentence:
    findings = f"; {format_count(len(report.findings), 'finding')}" if report.findings else ""
    drifts = summarize_outcomes(drift.verdict for drift in report.drifts)
    if not report.sources_ok:
        return Sentence(f"undecided, a needed source failed; {drifts}", Tone.BAD)
    if not report.drifts:
        return Sentence(f"the books are consistent{findings}", Tone.GOOD)
    tone = Tone.GOOD if report.consistent else Tone.WARN
    return Sentence(f"{drifts}{findings}", tone)
