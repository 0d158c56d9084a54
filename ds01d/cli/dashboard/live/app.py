"""The live view: looks at the state again and again, and knows the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import Footer, Input

from ds01d.cli.base.command import INTERRUPTED
from ds01d.cli.dashboard.board import Board, BoardChoice, build_board
from ds01d.cli.dashboard.details import detail_blocks, detail_title, overview_blocks
from ds01d.cli.dashboard.headings import format_clock
from ds01d.cli.dashboard.help_page import help_blocks
from ds01d.cli.dashboard.hosts import HostPoller
from ds01d.cli.dashboard.live.board_keys import BOARD_KEYS
from ds01d.cli.dashboard.live.line_block import LineBlock
from ds01d.cli.dashboard.live.slot_grid import SlotGrid
from ds01d.cli.dashboard.live.text_screen import TextScreen
from ds01d.cli.dashboard.live.theme import TERMINAL_THEME
from ds01d.cli.dashboard.notices import notice_lines
from ds01d.cli.dashboard.row_groups import RowChoice, RowOrder
from ds01d.cli.dashboard.view import DashboardState
from ds01d.cli.output.blocks import Block, Sentence, Tone
from ds01d.errors import Ds01Error

_ORDERS = tuple(RowOrder)


class Dashboard(App[None]):
    """Reads the state, draws what changed, and repeats.

    `look` reads the state; `warn` gives what puts it in doubt; `sweep` asks the daemon for a sweep
    and describes the result. `hosts`: asks all hosts, None where there is only this one.
    """

    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    CSS = """
    Screen { layout: vertical; }
    #filter { display: none; height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = BOARD_KEYS

    def __init__(
        self,
        *,
        look: Callable[[], DashboardState],
        warn: Callable[[DashboardState], Iterable[Sentence]],
        sweep: Callable[[], str],
        interval_s: float,
        hosts: HostPoller | None = None,
    ) -> None:
        super().__init__(ansi_color=True)
        self.register_theme(TERMINAL_THEME)
        self.theme = TERMINAL_THEME.name
        self._look = look
        self._warn = warn
        self._ask_for_sweep = sweep
        self._interval_s = interval_s
        self._hosts = hosts
        self._state: DashboardState | None = None
        self._board: Board | None = None
        self._problem = ""
        self._answer = ""
        self.choice = BoardChoice()

    def compose(self) -> ComposeResult:
        yield LineBlock(id="head", is_reverse=True)
        yield LineBlock(id="notice")
        yield LineBlock(id="titles")
        yield SlotGrid(id="grid")
        yield LineBlock(id="below")
        yield Input(
            id="filter", placeholder="words, all in a row; Enter keeps, Esc ends", compact=True
        )
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.set_interval(self._interval_s, self.look_again)
        self.call_after_refresh(self.look_again)
        self.query_one(SlotGrid).focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    def look_again(self) -> None:
        """Refresh the state; a failure is shown above the previous state."""
        if self.choice.paused_at is not None:
            self._paint()  # a page of other hosts goes on
            return
        try:
            self._state = self._look()
        # A screen that runs for days must survive a source that fails for a while.
        except (Ds01Error, OSError) as error:
            at = "" if self._state is None else f" since {format_clock(self._state.now)}"
            self._problem = f"cannot refresh{at}: {error}"
        else:
            self._problem = ""
        self._paint()

    def _paint(self) -> None:
        """Draw what differs from what is drawn."""
        if not self.is_running or not self.screen_stack:
            return
        main = self.screen_stack[0]
        width, height = self.size
        notices = [Sentence(self._problem, Tone.BAD)] if self._problem else []
        if self._state is not None:
            notices += self._warn(self._state)
        if self._answer:
            notices.append(Sentence(self._answer, Tone.WARN))
        lines = notice_lines(notices, width)
        main.query_one("#notice", LineBlock).show_lines(lines)
        if self._state is None:
            return
        # The rows and what is below them share what the fixed lines leave.
        # Beside them: the head, the titles, the keys, and the filter while it is typed.
        taken = len(lines) + 3 + main.query_one("#filter").display
        self._board = build_board(self._state, self.choice, width, max(1, height - taken))
        board = self._board
        main.query_one("#head", LineBlock).show_lines([board.head])
        main.query_one("#titles", LineBlock).show_lines([board.titles])
        main.query_one("#below", LineBlock).show_lines(board.below)
        main.query_one(SlotGrid).show_board(board)
        # A page above the board is of the same moment.
        if isinstance(self.screen, TextScreen):
            self.screen.show_state(self._state)

    def on_click(self, event: events.Click) -> None:
        """A click on a title sorts by it, and a second one the other way round."""
        if self._board is None or event.widget is None or event.widget.id != "titles":
            return
        order = self._board.find_order_at(event.x)
        if order is not None:
            rows = self.choice.rows
            is_reversed = order is rows.order and not rows.is_reversed
            self._choose(replace(rows, order=order, is_reversed=is_reversed))

    async def on_slot_grid_row_opened(self, event: SlotGrid.RowOpened) -> None:
        key = event.key
        await self._open_page(detail_title(key), lambda state: detail_blocks(state, key))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Above a page only what works there is offered; in the filter a slash is one."""
        del parameters
        if action == "hosts" and self._hosts is None:
            return False
        is_typed = isinstance(self.focused, Input)
        if action in ("filter", "leave_filter") and is_typed is (action == "filter"):
            return False
        return not (isinstance(self.screen, TextScreen) and action in _BOARD_ACTIONS)

    def action_order(self, step: int) -> None:
        """Sort by the next, or the one before."""
        rows = self.choice.rows
        place = (_ORDERS.index(rows.order) + step) % len(_ORDERS)
        self._choose(replace(rows, order=_ORDERS[place], is_reversed=False))

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._choose(replace(self.choice.rows, is_reversed=not self.choice.rows.is_reversed))

    def action_free(self) -> None:
        """Hide the slots that are free, or show them again."""
        is_hidden = self._board is not None and self._board.hides_free
        self._choose(replace(self.choice.rows, hides_free=not is_hidden))

    def action_pause(self) -> None:
        """Keep what is shown, or go on; the head shows it."""
        if self._state is None:
            return
        is_paused = self.choice.paused_at is not None
        self.choice = replace(self.choice, paused_at=None if is_paused else self._state.now)
        self.look_again() if is_paused else self._paint()

    def action_sweep(self) -> None:
        """Have the daemon sweep."""
        self._answer = self._ask_for_sweep()
        self.look_again()
        self._paint()

    async def action_daemon(self) -> None:
        """Show the daemon, every drift and finding, and the last operations."""
        await self._open_page("ds01d, drifts, findings and operations", overview_blocks)

    async def action_hosts(self) -> None:
        """Show all hosts, and who is where; they are asked while that is shown."""
        hosts = self._hosts
        if hosts is not None:
            await self._open_page("all hosts", lambda _: hosts.show())

    async def action_keys(self) -> None:
        """Show the keys and symbols."""
        await self._open_page("keys and symbols", lambda _: help_blocks())

    def action_interrupt(self) -> None:
        """End as by a signal."""
        self.exit(return_code=INTERRUPTED)

    def action_filter(self) -> None:
        """Ask what to show only."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.screen.set_focus(field)
        self._paint()

    def action_unfilter(self) -> None:
        """Show everything again."""
        self._answer = ""
        self.screen_stack[0].query_one("#filter", Input).value = ""
        self.action_leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        words = tuple(event.value.lower().split())
        rows = replace(self.choice.rows, words=words)
        self.choice = replace(self.choice, rows=rows, filter_text=event.value.strip())
        self._paint()

    def action_leave_filter(self) -> None:
        """Show what fits from now on."""
        main = self.screen_stack[0]
        main.query_one("#filter").display = False
        main.set_focus(main.query_one(SlotGrid))
        self._paint()

    def _choose(self, rows: RowChoice) -> None:
        self.choice = replace(self.choice, rows=rows)
        self._paint()

    async def _open_page(
        self, title: str, draw: Callable[[DashboardState], Iterable[Block]]
    ) -> None:
        if self._state is not None and not isinstance(self.screen, TextScreen):
            page = TextScreen(title, draw)
            page.show_state(self._state)
            await self.push_screen(page)


_BOARD_ACTIONS = frozenset(
    {"filter", "order", "reverse", "free", "daemon", "hosts", "keys", "unfilter"}
)
