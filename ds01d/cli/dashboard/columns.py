"""Which columns rows have room for, and how wide each may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ds01d.cli.dashboard.cells import UNKNOWN, Piece, Pieces, fit_text, text_width
from ds01d.cli.dashboard.row_cells import AMOUNT_AT, BAR_AT, COLUMNS, Column
from ds01d.cli.dashboard.row_groups import RowOrder
from ds01d.cli.dashboard.rows import SlotRow
from ds01d.cli.output.blocks import Tone
from ds01d.model.primitives import Wall

NARROWEST = 38
"""The width below which a row cannot be read."""
_GAP = 1


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """A column, `width` columns of the terminal wide."""

    column: Column
    width: int


def plan_columns(rows: Sequence[SlotRow], now: Wall, width: int) -> tuple[PlannedColumn, ...]:
    """The columns for rows of `width`, the more important ones first, in the order of display."""
    wanted = {
        name: max(map(text_width, {column.text(row, now) for row in rows}), default=0)
        for name, column in COLUMNS.items()
    }
    # A column in which nothing is known takes no room: the heading of the GPU has the "?".
    for name in _OPTIONAL:
        if not _has_value(name, rows, now):
            wanted[name] = 0
    widths: dict[str, int] = {}
    left = width + _GAP
    for name in _BY_IMPORTANCE:
        column = COLUMNS[name]
        if name in _OPTIONAL and not wanted[name]:
            continue
        if column.least + _GAP <= left:
            widths[name] = column.least
            left -= column.least + _GAP
    left = _widen_columns(widths, wanted, left)
    # What is left goes to the name, so that rows fill their column of the screen.
    widths["notes" if "notes" in widths else "container"] += left
    return tuple(
        PlannedColumn(column, widths[name]) for name, column in COLUMNS.items() if name in widths
    )


def column_titles(
    planned: Iterable[PlannedColumn], order: RowOrder, *, is_reversed: bool
) -> Pieces:
    """The titles, of which that of the order has an arrow."""
    arrow = "▲" if is_reversed else "▼"
    pieces: list[Piece] = []
    for part in planned:
        is_sorted = part.column.order is order
        mark = arrow if is_sorted else ""
        room = part.width - len(mark)
        text = part.column.title.upper()[:room] + mark
        pieces += [Piece(fit_text(text, part.width), Tone.STRONG), Piece(" " * _GAP)]
    return tuple(pieces[:-1])


def find_order_at(planned: Iterable[PlannedColumn], x: int) -> RowOrder | None:
    """What the title at a place of the line sorts by."""
    for part in planned:
        x -= part.width + _GAP
        if x < 0:
            return part.column.order
    return None


def row_pieces(row: SlotRow, planned: Sequence[PlannedColumn], now: Wall) -> Pieces:
    """The cells of a row, as wide as the columns and the gaps between them."""
    pieces: list[Piece] = []
    for part in planned:
        pieces += [part.column.cell(row, now, part.width), Piece(" " * _GAP)]
    return tuple(pieces[:-1])


def _widen_columns(widths: dict[str, int], wanted: Mapping[str, int], left: int) -> int:
    """Give the room that is left, in steps: a little to each before much to one."""
    for name, most in _STEPS:
        if name not in widths:
            least = COLUMNS[name].least
            if wanted[name] and least + _GAP <= left:
                widths[name] = min(left - _GAP, most, max(wanted[name], least))
                left -= widths[name] + _GAP
        else:
            target = min(most, COLUMNS[name].most, max(wanted[name], COLUMNS[name].least))
            more = min(left, max(0, target - widths[name]))
            # A bar of one column would say nothing.
            if name in _BARS and widths[name] + more < BAR_AT:
                continue
            widths[name] += more
            left -= more
    return left


def _has_value(name: str, rows: Iterable[SlotRow], now: Wall) -> bool:
    text = COLUMNS[name].text
    return any(text(row, now).strip(f"{UNKNOWN} ") for row in rows)


_OPTIONAL = frozenset({"utilization", "processes"})
_BARS = frozenset({"memory", "utilization"})
_BY_IMPORTANCE = ("slot", "container", "ends", "memory", "user", "state", "utilization")
# First what everybody looks at; a name that is missing above comes in with its first step.
_STEPS = (
    ("container", 12),
    ("memory", BAR_AT),
    ("user", 8),
    ("ends", 6),
    ("utilization", BAR_AT),
    ("container", 16),
    ("processes", 4),
    ("state", 10),
    ("user", 16),
    ("container", 24),
    ("notes", 16),
    ("type", 14),
    ("container", 30),
    ("memory", AMOUNT_AT),
    ("notes", 40),
    ("container", 60),
    ("user", 24),
    ("memory", 24),
    ("utilization", 13),
)
