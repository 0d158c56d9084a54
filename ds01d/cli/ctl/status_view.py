"""The picture that `ds01ctl status` shows: as one JSON object, and for people."""

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
    """What the daemon published `last`, and the slots: its own, or the books'.

    `silent`: why the daemon's word does not count; `unread`: why the books say nothing (to the
    daemon, while its word counts);
    `freezes`: those in force now; `undone`: what was taken back and is not done again;
    `late`: why the daemon's word, which counts, may not be so any more.
    """

    last: Status | None
    slots: tuple[SlotStatus, ...]
    freezes: tuple[Freeze, ...] = ()
    undone: tuple[tuple[str, Undone], ...] = ()
    silent: str = ""
    unread: str = ""
    late: str = ""

    @property
    def daemon(self) -> Status | None:
        """The daemon's word, while it counts."""
        return None if self.silent else self.last

    @property
    def gpus(self) -> tuple[GpuStatus, ...]:
        """The GPUs; the daemon alone tells of them."""
        return () if self.daemon is None else self.daemon.gpus


def status_document(picture: StatusView) -> dict[str, Document]:
    """The object that `status --json` prints. What an old status says is marked by `alive`."""
    last = picture.last
    return {
        "daemon": {
            "alive": not picture.silent,
            "reason": picture.silent or picture.late,
            **_daemon_document(last),
        },
        "books": {"ok": not picture.unread, "reason": picture.unread},
        "gpus": [_gpu_document(one) for one in picture.gpus],
        "slots": [_slot_document(one) for one in picture.slots],
        "sources": {
            source.value: {
                "ok": told.ok,
                "reason": told.reason,
                "since": DisplayTime(told.since),
                "last_success": _display_time(told.last_success),
            }
            for source, told in (last.sources if last is not None else {}).items()
        },
        "drifts": [
            {"kind": d.kind.value, "verdict": d.outcome.value, "count": d.count}
            for d in (last.drifts if last is not None else ())
        ],
        "open_drifts": [
            {
                "kind": one.kind.value,
                "container": one.container,
                "slot": one.slot,
                "action": one.action.value,
                "verdict": one.outcome.value,
                "gate": None if one.gate is None else one.gate.value,
                "reason": "; ".join(part for part in (one.difference, one.reason) if part),
                "first_seen": _display_time(one.first_seen),
                "until": _display_time(one.until),
            }
            for one in (last.open_drifts if last is not None else ())
        ],
        "findings": [finding_document(one) for one in (last.findings if last is not None else ())],
        "freezes": [freeze_document(one) for one in picture.freezes],
        "undone": [
            {"id": entry, "by": one.by, "since": DisplayTime(one.since), "subjects": one.subjects}
            for entry, one in picture.undone
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
            {"kind": one.kind.value, "reason": one.text, "fix": one.fix} for one in last.warnings
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


def _gpu_document(one: GpuStatus) -> Document:
    return {
        "index": one.index,
        "uuid": one.uuid,
        "name": one.name,
        "mig": one.mig,
        "memory_used": one.memory_used,
        "memory_total": one.memory_total,
        "utilization": one.utilization,
        "temperature": one.temperature,
        "health": one.health,
    }


def _slot_document(one: SlotStatus) -> Document:
    return {
        "slot": one.id,
        "type": one.type.value,
        "uuid": one.uuid,
        "profile": one.profile,
        "holders": [
            {
                "container": holder.container,
                "user": holder.user,
                "state": holder.state,
                "until": _display_time(holder.until),
            }
            for holder in one.holders
        ],
        "foreign": one.foreign,
        "memory_used": one.memory_used,
        "memory_total": one.memory_total,
        "drifts": one.drifts,
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


def status_warnings(picture: StatusView, config: Config, now: Wall) -> Iterator[Sentence]:
    """What comes first, because all that follows may not be so: no daemon, or passes that fail."""
    daemon = picture.daemon
    if daemon is None:
        yield Sentence(f"No word from the daemon: {picture.silent}", Tone.BAD)
        if picture.unread:
            yield Sentence(f"The books cannot be read: {picture.unread}", Tone.BAD)
        else:
            yield Sentence(f"What the books say ({config.books.state}):", Tone.WARN)
        return
    if picture.late:
        yield Sentence(picture.late, Tone.BAD)
    for text in (describe_failing(daemon.passes, now), describe_failed(daemon)):
        if text:
            yield Sentence(text, Tone.BAD)
    if picture.unread:
        told = f"The books cannot be read, what is shown of them is from before: {picture.unread}"
        yield Sentence(told, Tone.BAD)


def status_blocks(picture: StatusView, config: Config, now: Wall) -> Iterator[Block]:
    """The same, for people."""
    yield from status_warnings(picture, config, now)
    if picture.slots:
        columns = ("slot", "type", "container", "user", "state", "until", "others")
        yield Table(columns, _slot_rows(picture.slots))
        held = sum(bool(one.holders) for one in picture.slots)
        yield Sentence("")
        yield Sentence(f"{format_count(held, 'slot')} of {len(picture.slots)} held")
    for freeze in picture.freezes:
        yield Sentence(f"frozen: {describe_freeze(freeze, now)}", Tone.WARN)
    for entry, one in picture.undone:
        about = ", ".join(one.subjects)
        when = DisplayTime(one.since).away(now)
        yield Sentence(
            f"undone: {about}, by {one.by} {when} (entry {entry}), until thawed", Tone.WARN
        )
    if picture.daemon is not None:
        yield Title("daemon")
        yield Facts(tuple(daemon_facts(picture.daemon, now)))
        if picture.daemon.findings:
            yield Title("findings")
            yield finding_table(picture.daemon.findings)


def _slot_rows(slots: Iterable[SlotStatus]) -> list[list[Cell]]:
    """A row for each holder, and one for each slot that nobody holds."""
    rows: list[list[Cell]] = []
    for slot in slots:
        kind = slot.profile or slot.type.value
        if not slot.holders:
            rows.append([slot.id, kind, None, None, unbooked_cell(slot), None, slot.foreign])
        for holder in slot.holders:
            until = _display_time(holder.until)
            who: list[Cell] = [holder.container, holder.user]
            rows.append([slot.id, kind, *who, state_cell(holder.state), until, slot.foreign])
    return rows


def unbooked_cell(slot: SlotStatus) -> Cell:
    """The state of a slot that nobody holds: it may be used all the same."""
    return Toned("in use", Tone.WARN) if slot.foreign else Toned("free", Tone.GOOD)


def state_cell(word: str) -> Cell:
    """A container's state, in its colour."""
    tones = {"absent": Tone.WARN, "running": Tone.GOOD, "unknown": Tone.FAINT}
    return Toned(word, tones.get(word, Tone.PLAIN))


def daemon_facts(last: Status, now: Wall) -> Iterator[tuple[str, Cell]]:
    """What the daemon says of itself and its sources."""
    ready = "ready" if last.ready else "not ready yet"
    if last.passes.failing:
        ready = "passes fail"
    yield "daemon", f"{ready}, mode {last.mode}, version {last.version}, pid {last.pid}"
    for reason in last.degraded:
        yield "degraded", Toned(reason, Tone.BAD)
    for warning in last.warnings:
        yield "warning", Toned(f"{warning.text}; fix: {warning.fix}", Tone.WARN)
    if not last.engine_trusted:
        yield (
            "engine",
            Toned("another one than before: nothing is released; ds01ctl thaw --engine", Tone.BAD),
        )
    for source, told in last.sources.items():
        yield source.value, _source_cell(told, now)
    if last.passes.failing:
        yield (
            "last successful pass",
            _display_time(last.passes.last_success) or Toned("none", Tone.BAD),
        )
    if last.last_sweep is not None:
        took = f"took {last.last_sweep.duration_s:.3f} s"
        yield "last sweep", [DisplayTime(last.last_sweep.at), took]
    yield "next sweep", _display_time(last.next_sweep)
    pace = last.pace
    tone = Tone.WARN if pace.used >= pace.limit else Tone.PLAIN
    yield (
        "pace",
        Toned(
            f"{pace.used} of {pace.limit} releases without a destroy event"
            f" in {format_span(pace.window_s)}",
            tone,
        ),
    )
    open_drifts = [d for d in last.drifts if d.outcome is not Outcome.DONE]
    counts = [f"{d.count} {d.kind} {d.outcome}" for d in last.drifts]
    known = incomplete_suffix(last)
    tone = Tone.WARN if open_drifts or known else Tone.GOOD
    yield "drifts", Toned(counts or f"none{known}", tone)
    yield "findings", len(last.findings)


def describe_freeze(freeze: Freeze, now: Wall) -> str:
    """A freeze in words."""
    what = "everything" if freeze.subject == "*" else freeze.subject
    until = (
        f"thaws {DisplayTime(freeze.until).away(now)}"
        if freeze.until is not None
        else "until thawed"
    )
    why = f": {freeze.reason}" if freeze.reason else ""
    return f"{what}, by {freeze.by}, {until}{why}"


def _source_cell(told: SourceStatus, now: Wall) -> Cell:
    since = DisplayTime(told.since).away(now).removesuffix(" ago")
    if told.ok:
        return Toned(f"ok for {since}", Tone.GOOD)
    return Toned(f"down for {since}: {told.reason}", Tone.BAD)


def _display_time(at: Wall | None) -> DisplayTime | None:
    return DisplayTime(at) if at is not None else None
