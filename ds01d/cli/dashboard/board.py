"""The live view at one moment and size: the lines that are drawn, and what stands where. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ds01d.cli.ctl.log_view import LogRow
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.dashboard.cells import Piece, Pieces, join_pieces
from ds01d.cli.dashboard.columns import (
    NARROWEST,
    PlannedColumn,
    column_titles,
    find_order_at,
    plan_columns,
    row_pieces,
)
from ds01d.cli.dashboard.headings import (
    HeadLine,
    gpu_pieces,
    head_pieces,
    problem_pieces,
    user_pieces,
)
from ds01d.cli.dashboard.placement import GAP, Placement, place_groups
from ds01d.cli.dashboard.problems import Problem, list_problems
from ds01d.cli.dashboard.row_groups import RowChoice, RowOrder, group_rows
from ds01d.cli.dashboard.rows import GpuHeading, Row, RowKey, SlotRow, UserHeading, list_rows
from ds01d.cli.dashboard.view import DashboardState
from ds01d.cli.output.blocks import Tone
from ds01d.documents.values import DisplayTime
from ds01d.model.primitives import Wall

_LEAST_BELOW = 3
_SCROLLBAR = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardChoice:
    """What the person in front of it has chosen."""

    rows: RowChoice = field(default_factory=RowChoice)
    filter_text: str = ""
    paused_at: Wall | None = None


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A line of one column of the screen, and what it is about."""

    row: Row
    pieces: Pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Everything that is drawn; lines are as wide as they were asked for.

    `columns`: the columns of the screen, each `column_width` wide, and the rows in them. `titles`:
    above each of them. `below`: problems, then the last operations.
    """

    head: Pieces
    titles: Pieces
    columns: tuple[tuple[PlacedRow, ...], ...]
    column_width: int
    planned: tuple[PlannedColumn, ...]
    below: tuple[Pieces, ...]
    height: int
    hides_free: bool

    @property
    def rows(self) -> list[Row]:
        """In the order in which they are read, column by column."""
        return [placed.row for column in self.columns for placed in column]

    def find_order_at(self, x: int) -> RowOrder | None:
        """What the title at a place of the line of titles sorts by."""
        inside = x % (self.column_width + GAP)
        return find_order_at(self.planned, inside)

    def find_row_at(self, x: int, y: int) -> Row | None:
        """What stands at a place below the titles."""
        column = x // (self.column_width + GAP)
        if 0 <= column < len(self.columns) and 0 <= y < len(self.columns[column]):
            return self.columns[column][y].row
        return None

    def find_place(self, key: RowKey) -> tuple[int, int] | None:
        """The column and line of what a key names."""
        for number, column in enumerate(self.columns):
            for line, placed in enumerate(column):
                if placed.row.key == key:
                    return number, line
        return None


def build_board(state: DashboardState, choice: BoardChoice, width: int, height: int) -> Board:
    """The board for `width` columns, where rows and what is below them share `height` lines."""
    view, now = state.status, state.now
    problems = list_problems(view)
    rows = list_rows(view, problems)
    below = list(_lines_below(state, problems, width))
    # What is wrong has a place of its own, however many rows there are.
    reserved = min(_LEAST_BELOW, len(problems))
    room = max(1, height - reserved)
    # The rows decide first: below them stands what fits.
    placement, hides_free = _place_rows(view, rows, choice.rows, (width, room))
    wanted = [row for column in placement.columns for row in column if isinstance(row, SlotRow)]
    # Narrower than that a row is cut: a few columns of it say more than squeezed ones.
    planned = plan_columns(wanted, now, max(NARROWEST, placement.width))
    head = HeadLine(
        view=view,
        rows=rows,
        problems=problems,
        shown=len(wanted),
        choice=choice.rows,
        now=now,
        hides_free=hides_free,
        filter_text=choice.filter_text,
        paused_at=choice.paused_at,
    )
    room_below = max(reserved, height - placement.height)
    titles = column_titles(planned, choice.rows.order, is_reversed=choice.rows.is_reversed)
    return Board(
        head=head_pieces(head, width),
        titles=_repeat_titles(join_pieces(titles, placement.width), len(placement.columns)),
        columns=tuple(_draw_columns(placement, planned, now)),
        column_width=placement.width,
        planned=planned,
        below=tuple(_cut_lines(below, len(problems), room_below, width)),
        height=placement.height,
        hides_free=hides_free,
    )


def _place_rows(
    view: StatusView, rows: Sequence[SlotRow], choice: RowChoice, size: tuple[int, int]
) -> tuple[Placement, bool]:
    """Where the wanted rows stand, and whether those of free slots were left out."""
    width, room = size
    placement = place_groups(group_rows(view, rows, choice), width, room)
    is_hidden = bool(choice.hides_free)
    # Who filters may look for a free slot; else its GPU's heading shows how many there are.
    if placement.height > room and choice.hides_free is None and not choice.words:
        choice, is_hidden = replace(choice, hides_free=True), True
        placement = place_groups(group_rows(view, rows, choice), width, room)
    if placement.height > room:
        placement = place_groups(group_rows(view, rows, choice), width - _SCROLLBAR, room)
    return placement, is_hidden


def _draw_columns(
    placement: Placement, planned: Sequence[PlannedColumn], now: Wall
) -> Iterator[tuple[PlacedRow, ...]]:
    for column in placement.columns:
        yield tuple(PlacedRow(row, _draw_row(row, planned, now, placement.width)) for row in column)


def _draw_row(row: Row, planned: Sequence[PlannedColumn], now: Wall, width: int) -> Pieces:
    match row:
        case GpuHeading():
            return gpu_pieces(row, width)
        case UserHeading():
            return user_pieces(row, width)
        case SlotRow():
            return join_pieces(row_pieces(row, planned, now), width)


def _repeat_titles(titles: Pieces, count: int) -> Pieces:
    """The titles over each column of the screen."""
    repeated: list[Piece] = []
    for _ in range(count):
        repeated += [*titles, Piece(" " * GAP)]
    return tuple(repeated[:-1])


def _lines_below(
    state: DashboardState, problems: Sequence[Problem], width: int
) -> Iterator[Pieces]:
    # What is wrong comes before what was done.
    yield from (problem_pieces(problem, state.now, width) for problem in problems)
    if state.log_problem:
        yield join_pieces([Piece(state.log_problem, Tone.BAD)], width)
    # The newest first: those that have no room are the older ones.
    yield from (_log_pieces(row, width) for row in reversed(state.operations))


def _log_pieces(row: LogRow, width: int) -> Pieces:
    if row.line is None:
        return join_pieces([Piece("log: unreadable ", Tone.BAD), Piece(row.text)], width)
    line = row.line
    words = [line.user, line.container, line.gpu, line.status, line.details]
    text = "  ".join(word for word in words if word)
    moment = f"{DisplayTime(line.at).to_local()[5:19].replace('T', ' ')} "
    return join_pieces([Piece(moment, Tone.FAINT), Piece(f"{line.operation}  {text}")], width)


def _cut_lines(lines: Sequence[Pieces], problems: int, room: int, width: int) -> Sequence[Pieces]:
    """The lines that have room. Problems that have none are counted, and never just missing."""
    if problems <= room or not room:
        return lines[:room]
    more = Piece(f"and {problems - room + 1} more: press d", Tone.WARN)
    return [*lines[: room - 1], join_pieces([more], width)]
