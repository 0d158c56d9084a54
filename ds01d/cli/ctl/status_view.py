"""What `ds01ctl status` shows: one JSON object, and blocks for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ds01d.cli.ctl.report import finding_document, finding_table
from ds01d.cli.output.blocks import (
    Block,
    Cell,
    Document,
    Facts,
    Sentence,
    Table,
    Title,
    Tone,
    Toned,
)
from ds01d.cli.output.text import DisplayTime, format_count, format_span
from ds01d.config import Config
from ds01d.model.checkpoint import Freeze, Undone
from ds01d.model.drift import Outcome
from ds01d.model.primitives import Wall
from ds01d.reporting.status import (
    GpuStatus,
    SlotStatus,
    SourceStatus,
    Status,
    describe_failed,
    describe_failing,
    incomplete_suffix,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """The status that the daemon published last, and the slots from it or from the books.

    `daemon_problem`: why the daemon counts as not running, "" if it runs. `books_problem`: why the
    books cannot be read (by the daemon while it runs). `freezes`: those in force now. `undone`:
    what was undone and is not repaired again. `late_reason`: why a status that counts may be stale.
    """

    last: Status | None
    slots: tuple[SlotStatus, ...]
    freezes: tuple[Freeze, ...] = ()
    undone: tuple[tuple[str, Undone], ...] = ()
    daemon_problem: str = ""
    books_problem: str = ""
    late_reason: str = ""

    @property
    def daemon(self) -> Status | None:
        """The published status, while the daemon runs."""
        return None if self.daemon_problem else self.last

    @property
    def gpus(self) -> tuple[GpuStatus, ...]:
        """The GPUs, known from the daemon alone."""
        return () if self.daemon is None else self.daemon.gpus


def status_document(view: StatusView) -> dict[str, Document]:
    """The object that `status --json` prints; `alive` is false for an outdated status."""
    last = view.last
    return {
        "daemon": {
            "alive": not view.daemon_problem,
            "reason": view.daemon_problem or view.late_reason,
            **_daemon_document(last),
        },
        "books": {"ok": not view.books_problem, "reason": view.books_problem},
        "gpus": [_gpu_document(entry) for entry in view.gpus],
        "slots": [_slot_document(entry) for entry in view.slots],
        "sources": {
            source.value: {
                "ok": source_status.ok,
                "reason": source_status.reason,
                "since": DisplayTime(source_status.since),
                "last_success": _display_time(source_status.last_success),
            }
            for source, source_status in (last.sources if last is not None else {}).items()
        },
        "drifts": [
            {"kind": d.kind.value, "verdict": d.outcome.value, "count": d.count}
            for d in (last.drifts if last is not None else ())
        ],
        "open_drifts": [
            {
                "kind": drift.kind.value,
                "container": drift.container,
                "slot": drift.slot,
                "action": drift.action.value,
                "verdict": drift.outcome.value,
                "gate": None if drift.gate is None else drift.gate.value,
                "reason": "; ".join(part for part in (drift.difference, drift.reason) if part),
                "first_seen": _display_time(drift.first_seen),
                "until": _display_time(drift.until),
            }
            for drift in (last.open_drifts if last is not None else ())
        ],
        "findings": [
            finding_document(finding) for finding in (last.findings if last is not None else ())
        ],
        "freezes": [freeze_document(freeze) for freeze in view.freezes],
        "undone": [
            {
                "id": entry,
                "by": undone.by,
                "since": DisplayTime(undone.since),
                "subjects": undone.subjects,
            }
            for entry, undone in view.undone
        ],
    }


def _daemon_document(last: Status | None) -> Mapping[str, Document]:
    if last is None:
        return {}
    sweep = last.last_sweep
    return {
        "written_at": DisplayTime(last.written_at),
        "pid": last.pid,
        "version": last.version,
        "mode": last.mode,
        "ready": last.ready and not last.passes.failing,
        "passes": {
            "failing": last.passes.failing,
            "since": _display_time(last.passes.failing_since),
            "reason": last.passes.reason,
            "failures": last.passes.failures,
            "last_success": _display_time(last.passes.last_success),
        },
        "engine_trusted": last.engine_trusted,
        "degraded": last.degraded,
        "warnings": [
            {"kind": warning.kind.value, "reason": warning.text, "fix": warning.fix}
            for warning in last.warnings
        ],
        "last_sweep": DisplayTime(sweep.at) if sweep is not None else None,
        "last_sweep_duration_s": round(sweep.duration_s, 3) if sweep is not None else None,
        "next_sweep": _display_time(last.next_sweep),
        "pace": {
            "used": last.pace.used,
            "limit": last.pace.limit,
            "window_s": last.pace.window_s,
        },
    }


def _gpu_document(gpu: GpuStatus) -> Document:
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "mig": gpu.mig,
        "memory_used": gpu.memory_used,
        "memory_total": gpu.memory_total,
        "utilization": gpu.utilization,
        "temperature": gpu.temperature,
        "health": gpu.health,
    }


def _slot_document(slot: SlotStatus) -> Document:
    return {
        "slot": slot.id,
        "type": slot.type.value,
        "uuid": slot.uuid,
        "profile": slot.profile,
        "holders": [
            {
                "container": holder.container,
                "user": holder.user,
                "state": holder.state,
                "until": _display_time(holder.until),
            }
            for holder in slot.holders
        ],
        "foreign": slot.foreign,
        "memory_used": slot.memory_used,
        "memory_total": slot.memory_total,
        "drifts": slot.drifts,
    }


def freeze_document(freeze: Freeze) -> dict[str, Document]:
    """A freeze; subject None stands for everything."""
    return {
        "subject": None if freeze.subject == "*" else freeze.subject,
        "by": freeze.by,
        "reason": freeze.reason,
        "since": DisplayTime(freeze.since),
        "until": _display_time(freeze.until),
    }


def status_warnings(view: StatusView, config: Config, now: Wall) -> Iterator[Sentence]:
    """What is shown first, since it puts the rest in doubt: no daemon, or failing passes."""
    daemon = view.daemon
    if daemon is None:
        yield Sentence(f"ds01d is not running ({view.daemon_problem})", Tone.BAD)
        if view.books_problem:
            yield Sentence(f"cannot read the books: {view.books_problem}", Tone.BAD)
        else:
            yield Sentence(f"showing the bookings in {config.books.state}", Tone.WARN)
        return
    if view.late_reason:
        yield Sentence(view.late_reason, Tone.BAD)
    for text in (describe_failing(daemon.passes, now), describe_failed(daemon)):
        if text:
            yield Sentence(text, Tone.BAD)
    if view.books_problem:
        yield Sentence(
            f"cannot read the books, the slots may be stale: {view.books_problem}", Tone.BAD
        )


def status_blocks(view: StatusView, config: Config, now: Wall) -> Iterator[Block]:
    """The status for people."""
    # First, since everything below may be outdated.
    yield from status_warnings(view, config, now)
    if view.slots:
        columns = ("slot", "type", "container", "user", "state", "until", "others")
        yield Table(columns, _slot_rows(view.slots))
        booked = sum(bool(slot.holders) for slot in view.slots)
        yield Sentence("")
        yield Sentence(f"{format_count(booked, 'slot')} of {len(view.slots)} booked")
    for freeze in view.freezes:
        yield Sentence(f"frozen: {describe_freeze(freeze, now)}", Tone.WARN)
    for entry, undone in view.undone:
        about = ", ".join(undone.subjects)
        when = DisplayTime(undone.since).relative_to(now)
        yield Sentence(
            f"undone: {about}, by {undone.by} {when} (entry {entry}), until thawed", Tone.WARN
        )
    if view.daemon is not None:
        yield Title("daemon")
        yield Facts(tuple(daemon_facts(view.daemon, now)))
        if view.daemon.findings:
            yield Title("findings")
            yield finding_table(view.daemon.findings)


def _slot_rows(slots: Iterable[SlotStatus]) -> list[list[Cell]]:
    """A row for each holder, and one for each slot without a holder."""
    rows: list[list[Cell]] = []
    for slot in slots:
        kind = slot.profile or slot.type.value
        if not slot.holders:
            rows.append([slot.id, kind, None, None, unbooked_cell(slot), None, slot.foreign])
        for holder in slot.holders:
            until = _display_time(holder.until)
            holder_cells: list[Cell] = [holder.container, holder.user]
            rows.append(
                [slot.id, kind, *holder_cells, state_cell(holder.state), until, slot.foreign]
            )
    return rows


def unbooked_cell(slot: SlotStatus) -> Cell:
    """The state of a slot without a holder: it may be in use all the same."""
    return Toned("in use", Tone.WARN) if slot.foreign else Toned("free", Tone.GOOD)


def state_cell(word: str) -> Cell:
    """A container's state, in its colour."""
    tones = {"absent": Tone.WARN, "running": Tone.GOOD, "unknown": Tone.FAINT}
    return Toned(word, tones.get(word, Tone.PLAIN))


def daemon_facts(status: Status, now: Wall) -> Iterator[tuple[str, Cell]]:
    """The state of the daemon and of its sources."""
    ready = "ready" if status.ready else "not ready yet"
    if status.passes.failing:
        ready = "passes fail"
    yield "daemon", f"{ready}, mode {status.mode}, version {status.version}, pid {status.pid}"
    for reason in status.degraded:
        yield "degraded", Toned(reason, Tone.BAD)
    for warning in status.warnings:
        yield "warning", Toned(f"{warning.text}; fix: {warning.fix}", Tone.WARN)
    if not status.engine_trusted:
        yield (
            "engine",
            Toned("not the trusted one: nothing is released; fix: ds01ctl thaw --engine", Tone.BAD),
        )
    for source, source_status in status.sources.items():
        yield source.value, _source_cell(source_status, now)
    if status.passes.failing:
        yield (
            "last successful pass",
            _display_time(status.passes.last_success) or Toned("none", Tone.BAD),
        )
    if status.last_sweep is not None:
        took = f"took {status.last_sweep.duration_s:.3f} s"
        yield "last sweep", [DisplayTime(status.last_sweep.at), took]
    yield "next sweep", _display_time(status.next_sweep)
    pace = status.pace
    # At the limit, releases wait until the window has passed.
    tone = Tone.WARN if pace.used >= pace.limit else Tone.PLAIN
    yield (
        "pace",
        Toned(
            f"{pace.used} of {pace.limit} releases without a destroy event"
            f" in {format_span(pace.window_s)}",
            tone,
        ),
    )
    open_drifts = [d for d in status.drifts if d.outcome is not Outcome.DONE]
    counts = [f"{d.count} {d.kind} {d.outcome}" for d in status.drifts]
    only_known = incomplete_suffix(status)
    tone = Tone.WARN if open_drifts or only_known else Tone.GOOD
    yield "drifts", Toned(counts or f"none{only_known}", tone)
    yield "findings", len(status.findings)


def describe_freeze(freeze: Freeze, now: Wall) -> str:
    """A freeze in words."""
    subject = "everything" if freeze.subject == "*" else freeze.subject
    until = (
        f"thaws {DisplayTime(freeze.until).relative_to(now)}"
        if freeze.until is not None
        else "until thawed"
    )
    why = f": {freeze.reason}" if freeze.reason else ""
    return f"{subject}, by {freeze.by}, {until}{why}"


def _source_cell(status: SourceStatus, now: Wall) -> Cell:
    since = DisplayTime(status.since).relative_to(now).removesuffix(" ago")
    if status.ok:
        return Toned(f"ok for {since}", Tone.GOOD)
    return Toned(f"down for {since}: {status.reason}", Tone.BAD)


def _display_time(at: Wall | None) -> DisplayTime | None:
    return DisplayTime(at) if at is not None else None
