"""A page of blocks over the board: details, the daemon, the keys. Escape goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from ds01d.cli.dashboard.cells import Piece, fit_text
from ds01d.cli.dashboard.live.line_block import LineBlock
from ds01d.cli.dashboard.view import DashboardState
from ds01d.cli.output.blocks import Block, Tone
from ds01d.cli.output.rich_renderer import render_blocks
from ds01d.text import make_printable


class TextScreen(Screen[None]):
    """Blocks made of the state, again with each look. `title`: what the page is about."""

    CSS = """
    TextScreen { layout: vertical; }
    #page { padding: 0 1; height: 1fr; scrollbar-size-vertical: 1; }
    #text { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back"),
        Binding("enter,backspace", "app.pop_screen", show=False),
        Binding("j", "page_line(1)", show=False),
        Binding("k", "page_line(-1)", show=False),
    ]

    def __init__(self, title: str, draw: Callable[[DashboardState], Iterable[Block]]) -> None:
        super().__init__()
        self._page_title = title
        self._draw_page = draw
        self._state: DashboardState | None = None
        self._shown: object = None

    def compose(self) -> ComposeResult:
        yield LineBlock(id="head", is_reverse=True)
        with VerticalScroll(id="page"):
            yield Static(id="text", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#page").focus()
        self.on_resize()

    def on_resize(self) -> None:
        if self._state is not None:
            self.call_after_refresh(self.show_state, self._state)

    def action_page_line(self, lines: int) -> None:
        """Scroll by a line, as in less."""
        self.query_one("#page").scroll_relative(y=lines, animate=False)

    def show_state(self, state: DashboardState) -> None:
        """Draw the page of this state, if it differs from what is drawn."""
        self._state = state
        # It is shown the state before it has a size.
        if not self.is_mounted:
            return
        blocks = list(self._draw_page(state))
        width = max(20, self.size.width - 4)
        head = Piece(fit_text(f" {make_printable(self._page_title)}", self.size.width), Tone.STRONG)
        self.query_one("#head", LineBlock).show_lines([(head,)])
        # Moments are shown beside now, so a page with one of them changes with the time.
        shown = (blocks, width, int(state.now))
        if shown != self._shown:
            self._shown = shown
            drawn = Group(*render_blocks(blocks, state.now, width)) if blocks else Text("")
            self.query_one("#text", Static).update(drawn)
