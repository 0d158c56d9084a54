"""What `ds01ctl status` shows to people, as blocks; the dashboard shares most of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ds01d.cli.ctl.report import finding_table
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.ctl.status_filter import StatusFilter
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
from ds01d.model.primitives import Source, Wall
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.status import Holder, SlotStatus, SourceStatus, Status
from ds01d.reporting.status_summary import describe_failed, describe_failing, incomplete_suffix
from ds01d.text import format_count, format_span

_COLUMNS = ("slot", "type", "container", "user", "state", "until", "others")
_WIDE_COLUMNS = ("util", "memory", "processes", "uuid")
_EVERY_SLOT = StatusFilter()
_SHOWN_IDLE_S: Final = 600.0
_MOST_FINDINGS: Final = 5  # of the fleet, each a line
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


def status_blocks(
    view: StatusView,
    config: Config,
    now: Wall,
    *,
    wide: bool = False,
    only: StatusFilter = _EVERY_SLOT,
) -> Iterator[Block]:
    """The status for people. `wide`: with readings. `only`: these slots, and nothing else."""
    # First, since everything below may be outdated.
    yield from status_warnings(view, config, now)
    shown = only.apply(view).slots
    if shown:
        yield slot_table(shown, now, wide=wide)
        yield Sentence("")
    if view.slots:
        count = len(shown) if only.is_set else sum(bool(slot.holders) for slot in shown)
        yield Sentence(only.describe_count(count, len(view.slots)))
    if wide:
        yield _readings_sentence(view, now)
    if only.is_set:
        return
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


def slot_table(slots: Iterable[SlotStatus], now: Wall, *, wide: bool = False) -> Table:
    """A row for each holder, and one for each slot without a holder."""
    # What is wide comes last: scripts that cut columns out find the others where they were.
    columns = (*_COLUMNS, *_WIDE_COLUMNS) if wide else _COLUMNS
    return Table(
        columns,
        [
            [*_holder_cells(slot, holder, now), *(_reading_cells(slot, holder) if wide else ())]
            for slot in slots
            for holder in (slot.holders or (None,))
        ],
    )


def _holder_cells(slot: SlotStatus, holder: Holder | None, now: Wall) -> list[Cell]:
    if holder is None:
        return [slot.id, slot.kind, None, None, unbooked_cell(slot), None, slot.shown_foreign]
    state = state_cell(holder.state, describe_idle(holder, now))
    shown: list[Cell] = [holder.container, holder.shown_user, state]
    return [slot.id, slot.kind, *shown, display_time(holder.until), slot.shown_foreign]


def _reading_cells(slot: SlotStatus, holder: Holder | None) -> list[Cell]:
    """What NVML reports: of the device, and of the holder's own processes where there is one."""
    used, processes = slot.memory_used, slot.processes
    if holder is not None:
        used, processes = holder.memory_used, holder.processes
    return [
        None if slot.utilization is None else f"{slot.utilization}%",
        format_memory(used, slot.memory_total),
        processes,
        slot.uuid,
    ]


def format_memory(used: int | None, total: int | None) -> str | None:
    """Bytes as "3.2/39.5 GiB"; None where neither is known."""
    if used is None and total is None:
        return None
    shown = ("-" if part is None else f"{part / 2**30:.1f}" for part in (used, total))
    return f"{'/'.join(shown)} GiB"


def _readings_sentence(view: StatusView, now: Wall) -> Sentence:
    """How old the readings are: ds01d takes them with its passes."""
    daemon = view.daemon
    at = None if daemon is None else daemon.readings_at
    if at is not None:
        return Sentence(f"readings of NVML: {DisplayTime(at).relative_to(now)}")
    nvml = None if daemon is None else daemon.sources.get(Source.NVML)
    reason = f": {nvml.reason}" if nvml is not None and nvml.reason else ""
    return Sentence(f"no readings of NVML{reason}", Tone.WARN)


def describe_idle(holder: Holder, now: Wall) -> str:
    """How long a running container has used none of its slots; "" while that is not long."""
    return format_idle(holder.idle_since, now)


def format_idle(since: Wall | None, now: Wall) -> str:
    """As `describe_idle`. `since` None: it is not idle, or that is unknown."""
    if since is None or now - since < _SHOWN_IDLE_S:
        return ""
    return f"idle {format_span(now - since)}"


def unbooked_cell(slot: SlotStatus) -> Cell:
    """The state of a slot without a holder: it may be in use all the same."""
    return Toned("in use", Tone.WARN) if slot.foreign else Toned("free", Tone.GOOD)


def state_cell(word: str, remark: str = "") -> Cell:
    """A container's state, in its colour; a `remark` is a warning."""
    if remark:
        return Toned(f"{word}, {remark}", Tone.WARN)
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
    if status.fleet is not None:
        yield "fleet hosts", _fleet_cell(status.fleet)
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


def _fleet_cell(fleet: FleetStatus) -> Cell:
    """How many hosts share the store, and what is wrong with them or with this one."""
    # The lists of the status are cut; `counts` are of all.
    counts, shown = fleet.counts, fleet.findings[:_MOST_FINDINGS]
    drifts = sum(sum(by_outcome.values()) for by_outcome in counts.drifts.values())
    parts = [f"{counts.hosts}, this one is {fleet.state}"]
    parts += [f"{counts.unseen} without a heartbeat"] if counts.unseen else []
    parts += [format_count(drifts, "drift")] if drifts else []
    parts += [f"{finding.kind} {finding.subject}: {finding.reason}" for finding in shown]
    more = sum(counts.findings.values()) - len(shown)
    parts += [f"{format_count(more, 'more finding')}: ds01ctl status --json"] if more > 0 else []
    is_well = fleet.state == "member" and len(parts) == 1
    return Toned(parts, Tone.GOOD if is_well else Tone.WARN)


def _source_cell(status: SourceStatus, now: Wall) -> Cell:
    since = DisplayTime(status.since).relative_to(now).removesuffix(" ago")
    if status.ok:
        return Toned(f"ok for {since}", Tone.GOOD)
    return Toned(f"down for {since}: {status.reason}", Tone.BAD)
