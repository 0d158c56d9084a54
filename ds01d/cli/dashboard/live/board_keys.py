"""The keys of the live view: which action each starts, and which are named at the bottom."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding, BindingType

BOARD_KEYS: Final[list[BindingType]] = [
    # First of all: what is typed fast or pasted after it, "q" among it, goes to the field.
    Binding("slash", "filter", "Filter", key_display="/", priority=True),
    Binding("enter", "leave_filter", show=False, priority=True),  # before the next key
    Binding("o", "order(1)", "Order"),
    Binding("O", "order(-1)", show=False),
    Binding("r", "reverse", show=False),
    Binding("f", "free", "Free"),
    Binding("d", "daemon", "Daemon"),
    Binding("a", "hosts", "All hosts"),
    Binding("p", "pause", show=False),
    Binding("s", "sweep", "Sweep"),
    Binding("question_mark", "keys", "Help", key_display="?"),
    Binding("q", "quit", "Quit"),
    Binding("escape", "unfilter", show=False),
    Binding("ctrl+c", "interrupt", show=False, priority=True),
]
