"""The columns of the live view: what each shows of a row, whole and at a width. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ds01d.cli.ctl.status_view import describe_idle
from ds01d.cli.dashboard.cells import (
    UNKNOWN,
    Piece,
    draw_bar,
    fit_text,
    format_memory,
    format_share,
    format_short_span,
    text_width,
)
from ds01d.cli.dashboard.row_groups import RowOrder
from ds01d.cli.dashboard.rows import FREE, IN_USE, SlotRow, share_of
from ds01d.cli.output.blocks import Tone
from ds01d.model.primitives import Wall

BAR_AT, AMOUNT_AT = 9, 19
"""The widths from which on a share has a bar, and memory its amount."""
_SOON_S = 600
_UID_SUFFIX = re.compile(r"\._\.\d+\Z")
_STATES = {
    "created": "new",
    "exited": "exit",
    "paused": "paus",
    "removing": "remv",
    "restarting": "rstr",
    "running": "run",
    "unknown": UNKNOWN,
    "absent": "gone",
    IN_USE: "used",
}
_STATE_TONES = {
    "running": Tone.GOOD,
    "absent": Tone.WARN,
    "unknown": Tone.FAINT,
    FREE: Tone.FAINT,
    IN_USE: Tone.WARN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. `least`: its width where room is short; `order`: what a click on it sorts by.

    `text`: what it holds, whole: the widest decides how wide the column may grow, up to `most`.
    `cell`: the same at a width.
    """

    title: str
    least: int
    most: int
    text: Callable[[SlotRow, Wall], str]
    cell: Callable[[SlotRow, Wall, int], Piece]
    order: RowOrder | None = None


def state_tone(state: str) -> Tone:
    """The tone of a container's state, or of a slot's."""
    return _STATE_TONES.get(state, Tone.PLAIN)


def _name_cell(row: SlotRow, _: Wall, width: int) -> Piece:
    """The name behind a mark: colour alone would say nothing to some, and on some terminals."""
    mark = "!" if row.problems else " "
    tone = row.problems[0].tone if row.problems else Tone.PLAIN
    if row.holder is None:
        others = ", ".join(row.slot.shown_foreign)
        name = f"({others})" if others else FREE if row.is_seen else "not booked"
        tone = tone or (Tone.WARN if others else Tone.FAINT)
    else:
        name = row.holder.container
        # The UID of its user shows nothing that the next column does not.
        if text_width(name) > width - 1:
            name = _UID_SUFFIX.sub("", name)
    return Piece(fit_text(f"{mark}{name}", width), tone)


def _name_text(row: SlotRow, _: Wall) -> str:
    return f" {row.holder.container}" if row.holder else f" ({', '.join(row.slot.shown_foreign)})"


def _user_text(row: SlotRow, _: Wall) -> str:
    if row.holder is None:
        return ""
    return row.holder.shown_user or UNKNOWN


def _user_cell(row: SlotRow, now: Wall, width: int) -> Piece:
    text = _user_text(row, now)
    # Decision 225: a guess must not look like an owner, also where "(guess)" is cut.
    if row.holder is not None and row.holder.is_guess and text_width(text) > width:
        text = f"~{row.holder.user}"
    return Piece(fit_text(text, width), Tone.FAINT if text == UNKNOWN else Tone.PLAIN)


def _state_text(row: SlotRow, now: Wall) -> str:
    holder = row.holder
    if holder is not None and holder.idle_since is not None and describe_idle(holder, now):
        return f"idle {format_short_span(now - holder.idle_since)}"
    return "" if row.state == FREE else row.state


def _state_cell(row: SlotRow, now: Wall, width: int) -> Piece:
    text = _state_text(row, now)
    tone = Tone.WARN if text.startswith("idle ") else state_tone(row.state)
    if len(text) > width:
        text = _STATES.get(text, text.partition(" ")[0])
    return Piece(fit_text(text, width), tone)


def _memory_text(row: SlotRow, _: Wall) -> str:
    slot = row.slot
    if row.memory_used is None and slot.memory_total is None:
        return UNKNOWN
    return " " * COLUMNS["memory"].most


def _memory_cell(row: SlotRow, _: Wall, width: int) -> Piece:
    slot, share = row.slot, row.memory_share
    # A share is compared faster than an amount, which comes only where both have room.
    if width >= AMOUNT_AT:
        amount = format_memory(row.memory_used, slot.memory_total)
        return _bar_piece(share, amount, width, 9)
    return _share_cell(share, width)


def _utilization_text(row: SlotRow, _: Wall) -> str:
    return UNKNOWN if row.slot.utilization is None else " " * (BAR_AT - 1) + "%"


def _utilization_cell(row: SlotRow, _: Wall, width: int) -> Piece:
    return _share_cell(share_of(row.slot.utilization, 100), width)


def _share_cell(share: float | None, width: int) -> Piece:
    # A bar of three columns shows less than the number in its place.
    if width < BAR_AT:
        tone = Tone.FAINT if share is None else Tone.PLAIN
        return Piece(fit_text(format_share(share), width, right=True), tone)
    return _bar_piece(share, format_share(share), width, 4)


def _bar_piece(share: float | None, amount: str, width: int, room: int) -> Piece:
    """A bar, and the amount at its right in `room` columns."""
    bar = draw_bar(share, width - room - 1)
    if share is None:
        # One sign shows it, and takes the eye less than a bar of them.
        return Piece(fit_text(UNKNOWN, width, right=True), Tone.FAINT)
    return Piece(f"{bar} {fit_text(amount, room, right=True)}")


def _processes_text(row: SlotRow, _: Wall) -> str:
    return UNKNOWN if row.processes is None else str(row.processes)


def _processes_cell(row: SlotRow, now: Wall, width: int) -> Piece:
    text = _processes_text(row, now)
    return Piece(fit_text(text, width, right=True), Tone.FAINT if text == UNKNOWN else Tone.PLAIN)


def _ends_text(row: SlotRow, now: Wall) -> str:
    if row.holder is None or row.holder.until is None:
        return ""
    left = row.holder.until - now
    return "over" if left <= 0 else format_short_span(left)


def _ends_cell(row: SlotRow, now: Wall, width: int) -> Piece:
    until = None if row.holder is None else row.holder.until
    if until is None:
        return Piece(" " * width)
    text = _ends_text(row, now)
    if text_width(text) > width:
        text = format_short_span(until - now, brief=True)
    # Soon enough to save one's work.
    tone = Tone.WARN if until - now < _SOON_S else Tone.PLAIN
    return Piece(fit_text(text, width, right=True), tone)


def _type_text(row: SlotRow, _: Wall) -> str:
    return row.slot.kind


def _type_cell(row: SlotRow, now: Wall, width: int) -> Piece:
    return Piece(fit_text(_type_text(row, now), width), Tone.FAINT)


def _notes_text(row: SlotRow, _: Wall) -> str:
    """What is wrong there, and who else uses it."""
    notes = [f"{problem.kind} {problem.standing}" for problem in row.problems]
    # Without a holder the others stand in the place of its name.
    if row.slot.foreign and row.holder is not None:
        notes.append(f"also {', '.join(row.slot.shown_foreign)}")
    return "; ".join(notes)


def _notes_cell(row: SlotRow, now: Wall, width: int) -> Piece:
    tone = row.problems[0].tone if row.problems else Tone.WARN
    return Piece(fit_text(_notes_text(row, now), width), tone)


COLUMNS: Mapping[str, Column] = {
    "slot": Column(
        title="slot",
        least=4,
        most=8,
        text=lambda row, _: row.slot.id,
        cell=lambda row, _, width: Piece(fit_text(row.slot.id, width)),
        order=RowOrder.SLOT,
    ),
    "container": Column(
        title=" container", least=8, most=60, text=_name_text, cell=_name_cell, order=None
    ),
    "user": Column(
        title="user", least=5, most=24, text=_user_text, cell=_user_cell, order=RowOrder.USER
    ),
    "state": Column(title="state", least=4, most=10, text=_state_text, cell=_state_cell),
    "memory": Column(
        title="mem", least=4, most=24, text=_memory_text, cell=_memory_cell, order=RowOrder.MEMORY
    ),
    "utilization": Column(
        title="util",
        least=4,
        most=13,
        text=_utilization_text,
        cell=_utilization_cell,
        order=RowOrder.UTILIZATION,
    ),
    "processes": Column(title="proc", least=4, most=5, text=_processes_text, cell=_processes_cell),
    "ends": Column(
        title="ends", least=4, most=7, text=_ends_text, cell=_ends_cell, order=RowOrder.ENDS
    ),
    "type": Column(title="type", least=8, most=14, text=_type_text, cell=_type_cell),
    "notes": Column(
        title="notes", least=16, most=80, text=_notes_text, cell=_notes_cell, order=RowOrder.PROBLEM
    ),
}
