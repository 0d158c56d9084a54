"""What `ds01ctl status` shows to people, as blocks; the dashboard shares most of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ds01d.cli.ctl.report import finding_table
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.output.blocks import (
    Block,
    Cell,
    Facts,
    Sentence,
    Table,
    Title,
    Tone,
    Toned,
)
from ds01d.config import Config
from ds01d.decide.freezes import describe_freeze
from ds01d.documents.values import DisplayTime, display_time
from ds01d.model.drift import Outcome
from ds01d.model.primitives import Wall
from ds01d.reporting.status import SlotStatus, SourceStatus, Status
from ds01d.reporting.status_summary import describe_failed, describe_failing, incomplete_suffix
from ds01d.text import format_count, format_span

_TONES = {"absent": Tone.WARN, "running": Tone.GOOD, "unknown": Tone.FAINT}


def status_warnings(view: StatusView, config: Config, now: Wall) -> Iterator[Sentence]:
    """What is shown first, since it puts the rest in doubt: no daemon, or failing passes."""
    daemon = view.daemon
    if daemon is None:
        yield Sentence(f"ds01d is not running ({view.daemon_problem})", Tone.BAD)
        if view.books_problem:
            yield Sentence(f"cannot read the books: {view.books_problem}", Tone.BAD)
        else:
            shown = f"the bookings in {config.books.state}"
            if config.books.kind == "docker":
                shown = f"what containers request, and {config.books.state}"
            yield Sentence(f"showing {shown}", Tone.WARN)
        return
    if view.late_reason:
        yield Sentence(view.late_reason, Tone.BAD)
    # Invariant 16: what puts the rest in doubt stands before it.
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
            rows.append([slot.id, kind, None, None, unbooked_cell(slot), None, slot.shown_foreign])
        for holder in slot.holders:
            until = display_time(holder.until)
            holder_cells: list[Cell] = [holder.container, holder.shown_user]
            rows.append(
                [slot.id, kind, *holder_cells, state_cell(holder.state), until, slot.shown_foreign]
            )
    return rows


def unbooked_cell(slot: SlotStatus) -> Cell:
    """The state of a slot without a holder: it may be in use all the same."""
    return Toned("in use", Tone.WARN) if slot.foreign else Toned("free", Tone.GOOD)


def state_cell(word: str) -> Cell:
    """A container's state, in its colour."""
    return Toned(word, _TONES.get(word, Tone.PLAIN))


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
            display_time(status.passes.last_success) or Toned("none", Tone.BAD),
        )
    if status.last_sweep is not None:
        took = f"took {status.last_sweep.duration_s:.3f} s"
        yield "last sweep", [DisplayTime(status.last_sweep.at), took]
    yield "next sweep", display_time(status.next_sweep)
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


def _source_cell(status: SourceStatus, now: Wall) -> Cell:
    since = DisplayTime(status.since).relative_to(now).removesuffix(" ago")
    if status.ok:
        return Toned(f"ok for {since}", Tone.GOOD)
    return Toned(f"down for {since}: {status.reason}", Tone.BAD)
