"""Lines above groups of rows, and the line at the top of the screen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.dashboard.cells import (
    UNKNOWN,
    Piece,
    Pieces,
    draw_bar,
    fit_text,
    format_memory,
    format_share,
    join_pieces,
    text_width,
)
from ds01d.cli.dashboard.problems import FINDING, Problem
from ds01d.cli.dashboard.row_groups import RowChoice, RowOrder
from ds01d.cli.dashboard.rows import FREE, GpuHeading, SlotRow, UserHeading, share_of
from ds01d.cli.dashboard.view import HOT_C
from ds01d.cli.output.blocks import Tone
from ds01d.documents.values import DisplayTime
from ds01d.model.primitives import Wall
from ds01d.reporting.status import GpuStatus, Status
from ds01d.text import format_count, format_span

_BAR = 5


class Part(NamedTuple):
    """A part of a line that is left out where there is no room; the lowest rank stays longest."""

    rank: int
    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLine:
    """What the line at the top is made of.

    `shown`: how many rows the filter leaves. `hides_free`: those of free slots are not shown.
    `paused_at`: since when nothing new is shown.
    """

    view: StatusView
    rows: Sequence[SlotRow]
    problems: Sequence[Problem]
    shown: int
    choice: RowChoice
    now: Wall
    hides_free: bool = False
    filter_text: str = ""
    paused_at: Wall | None = None


def head_pieces(head: HeadLine, width: int) -> Pieces:
    """How old the status is, how much is free, what is wrong, and what is not shown."""
    return _fit_parts(list(_head_parts(head)), width, " · ")


def gpu_pieces(heading: GpuHeading, width: int) -> Pieces:
    """A GPU on a line: name, temperature, memory, utilisation, health."""
    gpu = heading.gpu
    parts = [Part(0, f"GPU {heading.index}", Tone.STRONG)]
    # Without a reading there is nothing to be left out, and nothing that looks like a zero.
    if gpu is None:
        parts += [Part(1, "no readings", Tone.FAINT)]
    else:
        parts += _gpu_parts(gpu, width)
    # The books alone do not have those that use a slot without a booking.
    free = f"{heading.free}/{heading.slots} {FREE if heading.is_seen else 'not booked'}"
    parts.append(Part(3, free, Tone.FAINT if not heading.free else Tone.PLAIN))
    return _fit_parts(parts, width, " ")


def user_pieces(heading: UserHeading, width: int) -> Pieces:
    """A user on a line, with how much they hold."""
    if not heading.user:
        return _fit_parts([Part(0, "not held", Tone.STRONG)], width, " ")
    parts = [
        Part(0, heading.user, Tone.STRONG),
        Part(1, format_count(heading.slots, "slot")),
        Part(2, f"in {format_count(heading.containers, 'container')}", Tone.FAINT),
    ]
    return _fit_parts(parts, width, " ")


def problem_pieces(problem: Problem, now: Wall, width: int) -> Pieces:
    """A drift or a finding on a line."""
    wait = ""
    if problem.until is not None and problem.until > now:
        wait = f", in {format_span(problem.until - now)}"
    parts = [
        Piece(f"! {problem.kind} ", problem.tone),
        Piece(f"{problem.standing}{wait}"),
        Piece(f"  {problem.subject}" if problem.subject else "", Tone.STRONG),
        Piece(f"  {problem.reason}" if problem.reason else "", Tone.FAINT),
    ]
    return join_pieces(parts, width)


def _head_parts(head: HeadLine) -> list[Part]:
    view, now = head.view, head.now
    # Ranks: whether it can be trusted, what is wrong, how much is free, and last its own name.
    parts = [Part(9, "ds01-dashboard", Tone.STRONG)]
    if head.paused_at is not None:
        parts.append(Part(0, f"PAUSED at {format_clock(head.paused_at)}", Tone.BAD))
    parts.append(_age_part(view, now))
    # An age of readings that are not shown would only confuse.
    if view.daemon is not None:
        parts.append(_readings_part(view.daemon, now))
    slots = {row.slot.id for row in head.rows}
    free = sum(row.state == FREE for row in head.rows)
    word = FREE if view.daemon is not None else "not booked"
    parts.append(Part(2, f"{free} of {format_count(len(slots), 'slot')} {word}"))
    if view.daemon is None:
        parts.append(Part(4, f"drifts {UNKNOWN}", Tone.FAINT))
    else:
        findings = sum(problem.standing == FINDING for problem in head.problems)
        drifts = len(head.problems) - findings
        for count, word in ((drifts, "drift"), (findings, "finding")):
            if count:
                parts.append(Part(3, f"! {format_count(count, word)}", Tone.WARN))
        if not head.problems:
            parts.append(Part(6, "no drifts", Tone.GOOD))
    choice = head.choice
    if choice.order is not RowOrder.SLOT or choice.is_reversed:
        direction = ", reversed" if choice.is_reversed else ""
        parts.append(Part(5, f"by {choice.order.value}{direction}"))
    if head.filter_text:
        text = f"filter {head.filter_text!r}: {head.shown} of {len(head.rows)}"
        parts.append(Part(1, text, Tone.WARN))
    if head.hides_free:
        parts.append(Part(1, "free hidden", Tone.WARN))
    return parts


def _age_part(view: StatusView, now: Wall) -> Part:
    """How old is what is shown: nothing else distinguishes a quiet host from a dead daemon."""
    if view.daemon is None:
        last = "" if view.last is None else f" for {format_span(now - view.last.written_at)}"
        return Part(0, f"ds01d NOT RUNNING{last}", Tone.BAD)
    age = f"status {format_span(now - view.daemon.written_at)} old"
    return Part(0, f"{age}, LATE", Tone.BAD) if view.late_reason else Part(0, age)


def _readings_part(daemon: Status, now: Wall) -> Part:
    """NVML is sampled with sweeps, so its readings are older than the status."""
    if daemon.readings_at is None:
        return Part(7, "no readings", Tone.FAINT)
    return Part(7, f"readings {format_span(now - daemon.readings_at)} old")


def _gpu_parts(gpu: GpuStatus, width: int) -> list[Part]:
    memory = share_of(gpu.memory_used, gpu.memory_total)
    parts = [Part(6, gpu.name.removeprefix("NVIDIA ") or "name unknown")]
    if gpu.health:
        # It may be as long as a driver's message, and the readings stay beside it.
        health = fit_text(", ".join(gpu.health), max(10, width // 2 - 4)).rstrip()
        parts.append(Part(1, f"! {health}", Tone.BAD))
    if gpu.temperature is None:
        parts.append(Part(5, f"{UNKNOWN}°C", Tone.FAINT))
    else:
        is_hot = gpu.temperature >= HOT_C
        text = f"{gpu.temperature}°C{'!' if is_hot else ''}"
        parts.append(Part(2 if is_hot else 5, text, Tone.BAD if is_hot else Tone.PLAIN))
    for rank, name, share in (
        (3, "mem", memory),
        (4, "util", share_of(gpu.utilization, 100)),
    ):
        tone = Tone.FAINT if share is None else Tone.PLAIN
        parts.append(Part(rank, f"{name} {format_share(share)}", tone))
        if share is not None:
            parts.append(Part(rank + 4, draw_bar(share, _BAR)))
    if gpu.memory_used is not None:
        parts.append(Part(9, f"({format_memory(gpu.memory_used, gpu.memory_total)})", Tone.FAINT))
    return parts


def _fit_parts(parts: Sequence[Part], width: int, gap: str) -> Pieces:
    """The parts that have room, in their order."""
    fitting = list(parts)
    # Whole parts go: half a number would be another number.
    while len(fitting) > 1 and _parts_width(fitting, gap) > width:
        fitting.remove(max(fitting, key=lambda part: part.rank))
    pieces: list[Piece] = []
    for part in fitting:
        pieces += [Piece(part.text, part.tone), Piece(gap)]
    return join_pieces(pieces[:-1], width)


def _parts_width(parts: Sequence[Part], gap: str) -> int:
    return sum(text_width(part.text) for part in parts) + text_width(gap) * (len(parts) - 1)


def format_clock(at: Wall) -> str:
    """The local time of day, as on a wall."""
    return DisplayTime(at).to_local()[11:19]
