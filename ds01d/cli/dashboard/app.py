"""The live view: draws scenes on the whole terminal, and knows the keys. Needs textual."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Input, Static

from ds01d.cli.base.command import INTERRUPTED
from ds01d.cli.dashboard.view import DashboardState
from ds01d.cli.output.blocks import Block, Tone
from ds01d.cli.output.rich_renderer import render_blocks
from ds01d.documents.values import DisplayTime
from ds01d.errors import Ds01Error
from ds01d.text import make_printable


class Dashboard(App[None]):
    """Reads the state, draws it, and repeats.

    `draw` makes blocks of a state, reduced to rows with the filter text; `sweep` asks the daemon
    for a sweep and describes the result.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 1; padding: 0 1; text-style: reverse; }
    #notice { height: auto; padding: 0 1; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    #scene { padding: 0 1; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "unfilter", "No filter"),
        Binding("s", "sweep", "Sweep now"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
    ]

    def __init__(
        self,
        *,
        look: Callable[[], DashboardState],
        draw: Callable[[DashboardState, str], Iterable[Block]],
        sweep: Callable[[], str],
        interval_s: float,
    ) -> None:
        super().__init__()
        self._look = look
        self._draw = draw
        self._ask_for_sweep = sweep
        self._interval_s = interval_s
        self._scene: DashboardState | None = None
        self._problem = ""
        self.wanted = ""

    def compose(self) -> ComposeResult:
        yield Static(id="head", markup=False)
        yield Static(id="notice", markup=False)
        yield Input(
            id="filter", placeholder="show only rows with this; Enter keeps it, Esc ends it"
        )
        with VerticalScroll(id="scroll"):
            yield Static(id="scene", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.set_interval(self._interval_s, self.look_again)
        self.call_after_refresh(self.look_again)
        self.query_one("#scroll").focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    def look_again(self) -> None:
        """Refresh the state; a failure is shown above the previous state."""
        try:
            self._scene = self._look()
        # A screen that runs for days must survive a source that fails for a while.
        except (Ds01Error, OSError) as error:
            self._problem = f"cannot refresh: {error}"
            self._show_notice(self._problem, Tone.BAD)
        else:
            if self._problem:
                self._problem = ""
                self._show_notice("")
        self._paint()

    def _paint(self) -> None:
        head = self.query_one("#head", Static)
        wanted = f" · only rows with {self.wanted!r}" if self.wanted else ""
        if self._scene is not None:
            words = f"ds01-dashboard · {DisplayTime(self._scene.now).to_local()}{wanted}"
            head.update(Text(make_printable(words)))
            width = max(20, self.query_one("#scroll").size.width - 4)
            drawn = render_blocks(self._draw(self._scene, self.wanted), self._scene.now, width)
            self.query_one("#scene", Static).update(Group(*drawn))

    def _show_notice(self, words: str, tone: Tone = Tone.WARN) -> None:
        self.query_one("#notice", Static).update(Text(make_printable(words), style=tone.value))

    def action_sweep(self) -> None:
        """Have the daemon sweep."""
        self._show_notice(self._ask_for_sweep())
        self.look_again()

    def action_filter(self) -> None:
        """Ask what to show only."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def action_unfilter(self) -> None:
        """Show everything again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        self._leave_filter()

    def action_interrupt(self) -> None:
        """End as Ctrl-C ends every command."""
        self.exit(return_code=INTERRUPTED)

    def on_input_changed(self, event: Input.Changed) -> None:
        self.wanted = event.value
        self._paint()

    def on_input_submitted(self) -> None:
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter").remove_class("shown")
        self.query_one("#scroll").focus()
