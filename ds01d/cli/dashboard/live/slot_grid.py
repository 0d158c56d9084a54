"""The rows of the board: scrolled, one of them selected, by keys or with the mouse."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ds01d.cli.dashboard.board import Board
from ds01d.cli.dashboard.live.line_block import make_segments
from ds01d.cli.dashboard.live.theme import SELECTED
from ds01d.cli.dashboard.placement import GAP
from ds01d.cli.dashboard.rows import RowKey


class SlotGrid(ScrollView, can_focus=True):
    """Columns of rows. The selection follows what it is on, wherever that moves."""

    DEFAULT_CSS = """
    SlotGrid { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Details"),
        Binding("up,k", "move(0, -1)", show=False),
        Binding("down,j", "move(0, 1)", show=False),
        Binding("left,h", "move(-1, 0)", show=False),
        Binding("right,l", "move(1, 0)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "edge(0)", show=False),
        Binding("end,G", "edge(-1)", show=False),
    ]

    class RowOpened(Message):
        """Somebody wants the details of a row."""

        def __init__(self, key: RowKey) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id)
        self._board: Board | None = None
        self.selected: RowKey | None = None
        self._place = 0

    @property
    def text(self) -> str:
        """What is drawn of all rows, also of those that are scrolled away."""
        height = self._board.height if self._board is not None else 0
        return "\n".join(self._compose_line(y, Style()).text for y in range(height))

    def show_board(self, board: Board) -> None:
        """Draw this board from now on; only lines that differ are drawn again."""
        before, self._board = self._board, board
        selected_before = self.selected
        self._keep_selection()
        # A size that is set lays out everything, even to the same value.
        size = Size(self.size.width, board.height)
        if size != self.virtual_size:
            self.virtual_size = size
        # With another height rows move to other lines, so comparing lines would save nothing.
        if before is None or before.height != board.height:
            self.refresh()
            return
        if selected_before != self.selected:
            self._refresh_row(selected_before)
            self._refresh_row(self.selected)
        is_alike = before.column_width == board.column_width
        for y in range(board.height):
            if not is_alike or _line_at(before, y) != _line_at(board, y):
                self.refresh_line(y)

    def render_line(self, y: int) -> Strip:
        return self._compose_line(y + self.scroll_offset.y, self.rich_style)

    def action_open(self) -> None:
        """Ask for the details of what is selected."""
        if self.selected is not None:
            self.post_message(self.RowOpened(self.selected))

    def action_move(self, columns: int, lines: int) -> None:
        """Select what stands beside: a line further on, also into the next column."""
        place = self._find_selected()
        if self._board is None or place is None:
            return
        # Down from the last line of a column goes on at the top of the next, as one reads.
        if lines:
            self._select_number(self._place + lines)
            return
        column = min(max(place[0] + columns, 0), len(self._board.columns) - 1)
        # The last column may be shorter.
        line = min(place[1], len(self._board.columns[column]) - 1)
        self._select(self._board.columns[column][line].row.key)

    def action_page(self, pages: int) -> None:
        """Select what stands a screen further on in the same column."""
        place = self._find_selected()
        if self._board is None or place is None:
            return
        column = self._board.columns[place[0]]
        line = place[1] + pages * max(1, self.size.height - 1)
        self._select(column[min(max(line, 0), len(column) - 1)].row.key)

    def action_edge(self, number: int) -> None:
        """Select the first or the last."""
        self._select_number(number if number >= 0 else len(self._rows()) - 1)

    def on_click(self, event: events.Click) -> None:
        """A click selects; one on what is selected opens it."""
        if self._board is None:
            return
        row = self._board.find_row_at(event.x, event.y + self.scroll_offset.y)
        if row is None:
            return
        if row.key == self.selected:
            self.action_open()
        else:
            self._select(row.key)

    def _rows(self) -> list[RowKey]:
        return [row.key for row in self._board.rows] if self._board is not None else []

    def _keep_selection(self) -> None:
        """Stay on what is selected; if that is gone, on what stands in its place now."""
        rows = self._rows()
        if not rows:
            self.selected, self._place = None, 0
        elif self.selected in rows:
            self._place = rows.index(self.selected)
        else:
            # The place, not the first row: a user at the end of a list stays there.
            self._place = min(self._place, len(rows) - 1)
            self.selected = rows[self._place]

    def _select_number(self, number: int) -> None:
        rows = self._rows()
        if rows:
            self._select(rows[min(max(number, 0), len(rows) - 1)])

    def _select(self, key: RowKey) -> None:
        before, self.selected = self.selected, key
        self._keep_selection()
        if before != key:
            self._refresh_row(before)
            self._refresh_row(key)
        place = self._find_selected()
        if place is not None:
            # Scrolling in steps would draw the screen many times over a slow connection.
            self.scroll_to_region(Region(0, place[1], 1, 1), animate=False)

    def _find_selected(self) -> tuple[int, int] | None:
        if self._board is None or self.selected is None:
            return None
        return self._board.find_place(self.selected)

    def _refresh_row(self, key: RowKey | None) -> None:
        place = self._board.find_place(key) if self._board is not None and key else None
        if place is not None:
            self.refresh_line(place[1])

    def _compose_line(self, y: int, style: Style) -> Strip:
        if self._board is None:
            return Strip.blank(self.size.width, style)
        segments: list[Segment] = []
        for column in self._board.columns:
            if segments:
                segments += Strip.blank(GAP, style)
            if y < len(column):
                is_selected = column[y].row.key == self.selected
                chosen = style + SELECTED if is_selected else style
                segments += make_segments(column[y].pieces, chosen)
            else:
                segments += Strip.blank(self._board.column_width, style)
        return Strip(segments).adjust_cell_length(self.size.width, style)


def _line_at(board: Board, y: int) -> list[object]:
    """What is drawn in a line, to compare."""
    return [column[y].pieces if y < len(column) else None for column in board.columns]
