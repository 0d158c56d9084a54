"""The report of a pass as JSON object, as table, and as exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ds01d.cli.base.command import CONSISTENT, DRIFT, ERROR
from ds01d.cli.output.blocks import Block, Document, Sentence, Table, Title, Tone, Toned
from ds01d.cli.output.text import DisplayTime
from ds01d.config import Config
from ds01d.model.drift import Finding, GatedDrift, Outcome
from ds01d.model.primitives import Now, Source, Wall
from ds01d.reconcile.report import Report
from ds01d.text import format_count

TONES = {
    Outcome.DUE: Tone.WARN,
    Outcome.WAITING: Tone.PLAIN,
    Outcome.DONE: Tone.GOOD,
    Outcome.FAILED: Tone.BAD,
}
_COLUMNS = ("kind", "container", "slot", "action", "verdict", "until", "reason")


def exit_code(report: Report) -> int:
    """0: nothing due, waiting or failed. 2: something is. 1: a needed source failed."""
    if not report.needed_sources_ok:
        return ERROR
    # Drift is 2 and not 1, so that cron can tell it from an error (decision 20).
    return CONSISTENT if report.is_consistent else DRIFT


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


def full_reason(gated: GatedDrift) -> str:
    """What differs, and why it waits or failed."""
    return "; ".join(dict.fromkeys(part for part in (gated.drift.reason, gated.reason) if part))


def report_document(report: Report, config: Config) -> dict[str, Document]:
    """The object that `plan --json` and `reconcile --json` print."""
    now = report.decision.snapshot.now
    return {
        "consistent": report.is_consistent,
        "mode": config.daemon.mode,
        "at": DisplayTime(now.wall),
        "sources": source_states(report, config),
        "drifts": [drift_document(entry, now) for entry in report.drifts],
        "findings": [finding_document(entry) for entry in report.findings],
        "troubles": report.warnings,
        "duration_s": round(report.duration_s, 3),
    }


def source_states(report: Report, config: Config) -> dict[str, Document]:
    """Each source with "ok" or why it failed."""
    unused = {Source.NVML: 'not used (gpu.source = "none")'} if config.gpu.source == "none" else {}
    return {
        source.value: "ok" if source in unused else state
        for source, state in report.sources.items()
    }


def drift_document(gated: GatedDrift, now: Now) -> dict[str, Document]:
    """A drift with its outcome and wait reason."""
    return {
        "kind": gated.drift.kind.value,
        "container": gated.drift.container,
        "slot": gated.drift.slot,
        "action": gated.drift.action.value,
        "verdict": gated.outcome.value,
        "reason": full_reason(gated),
        "gate": gated.gate.value if gated.gate is not None else None,
        "until": DisplayTime.from_boot(gated.until, now) if gated.until is not None else None,
        "taken": _booking_documents(gated.drift.taken),
        "given": _booking_documents(gated.drift.given),
        "evidence": gated.drift.evidence,
    }


def finding_document(finding: Finding) -> dict[str, Document]:
    """A finding."""
    return {
        "kind": finding.kind.value,
        "container": finding.container,
        "slot": finding.slot,
        "reason": finding.reason,
    }


def report_blocks(report: Report, config: Config, *, verbose: bool = False) -> Iterable[Block]:
    """The report for people. `verbose`: with the evidence."""
    yield from warning_sentences(report)
    if report.drifts:
        yield drift_table(report.drifts, report.decision.snapshot.now, verbose=verbose)
    if report.findings:
        yield Title("findings")
        yield finding_table(report.findings)
    if report.drifts or report.findings:
        yield Sentence("")
    for source, state in source_states(report, config).items():
        if state != "ok":
            yield Sentence(
                f"{source} failed: {state}; nothing that depends on it is changed", Tone.BAD
            )
    yield _summary_sentence(report)
    if config.daemon.mode == "observe" and report.drifts:
        yield Sentence('daemon.mode = "observe": nothing is repaired', Tone.WARN)


def warning_sentences(report: Report) -> Iterable[Sentence]:
    """Warnings, which come first since they put the rest in doubt."""
    for warning in report.warnings:
        yield Sentence(f"warning: {warning}", Tone.BAD)


def drift_table(drifts: Iterable[GatedDrift], now: Now, *, verbose: bool = False) -> Table:
    """Drifts, a row each; `verbose` with their evidence below."""
    drifts = tuple(drifts)
    rows = [
        (
            gated.drift.kind,
            gated.drift.container,
            gated.drift.slot,
            gated.drift.action,
            Toned(gated.outcome, TONES[gated.outcome]),
            DisplayTime.from_boot(gated.until, now) if gated.until is not None else None,
            full_reason(gated),
        )
        for gated in drifts
    ]
    details = [gated.drift.evidence for gated in drifts] if verbose else []
    return Table(_COLUMNS, rows, details)


def finding_table(findings: Iterable[Finding]) -> Table:
    """Findings, a row each."""
    rows = [(finding.kind, finding.container, finding.slot, finding.reason) for finding in findings]
    return Table(("kind", "container", "slot", "reason"), rows)


def summarize_drifts(drifts: Iterable[GatedDrift]) -> str:
    """'3 drifts: 1 due, 2 waiting'."""
    counts = Counter(gated.outcome for gated in drifts)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    return format_count(counts.total(), "drift") + (f": {parts}" if parts else "")


def report_time(report: Report) -> Wall:
    """When the report was made; times are shown relative to it."""
    return report.decision.snapshot.now.wall


def _summary_sentence(report: Report) -> Sentence:
    findings = f"; {format_count(len(report.findings), 'finding')}" if report.findings else ""
    if not report.needed_sources_ok:
        return Sentence(
            f"undecided, a needed source failed; {summarize_drifts(report.drifts)}",
            Tone.BAD,
        )
    if not report.drifts:
        return Sentence(f"the books are consistent{findings}", Tone.GOOD)
    tone = Tone.GOOD if report.is_consistent else Tone.WARN
    return Sentence(f"{summarize_drifts(report.drifts)}{findings}", tone)


def _booking_documents(pairs: Iterable[tuple[str, str]]) -> list[Document]:
    return [{"container": name, "slot": slot} for name, slot in sorted(pairs)]
