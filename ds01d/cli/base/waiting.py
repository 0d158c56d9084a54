"""Shows a caller who waits for a slot where they stand, on stderr, until the wait is over.

On a terminal it is one line that is kept up to date; elsewhere a line for each change of the place,
and one from time to time, so that a log shows that it goes on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

from ds01d.cli.output.streams import is_screen
from ds01d.text import format_span, make_printable

if TYPE_CHECKING:
    from ds01d.service.allocator_client import Waiting

REDRAW_S: Final = 1.0
REPEAT_S: Final = 300.0
_CLEAR_LINE: Final = "\r\x1b[K"


@contextmanager
def show_waiting(repeat_s: float = REPEAT_S) -> Iterator[Callable[[Waiting], None]]:
    """Gives what is to be called with each place; nothing of it is left on a terminal's line."""
    on_terminal = is_screen(sys.stderr)
    progress = _WaitProgress(REDRAW_S if on_terminal else repeat_s, on_terminal=on_terminal)
    try:
        yield progress.show_place
    finally:
        progress.stop()


class _WaitProgress:
    """Draws from a thread of its own: the caller's waits for the next reply."""

    def __init__(self, interval_s: float, *, on_terminal: bool) -> None:
        self._on_terminal, self._interval_s = on_terminal, interval_s
        self._since = time.monotonic()
        self._place: Waiting | None = None
        self._ended = threading.Event()
        self._drawing = threading.Lock()
        self._thread: threading.Thread | None = None

    def show_place(self, place: Waiting) -> None:
        self._place = place
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw_again, daemon=True)
            self._thread.start()
        self._draw(place, is_news=True)

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            if self._on_terminal:
                _write(_CLEAR_LINE)

    def _draw_again(self) -> None:
        while not self._ended.wait(self._interval_s):
            if self._place is not None:
                self._draw(self._place, is_news=False)

    def _draw(self, place: Waiting, *, is_news: bool) -> None:
        with self._drawing:
            if self._on_terminal:
                text = describe_place(place, time.monotonic() - self._since)
                _write(_CLEAR_LINE + _cut_line(text))
            else:
                waited_s = None if is_news else time.monotonic() - self._since
                with suppress(OSError):  # a closed stderr ends no wait
                    click.echo(describe_place(place, waited_s), err=True)


def describe_place(place: Waiting, waited_s: float | None = None) -> str:
    """One line: the place, for how long, why there is no slot, and when a hold ends."""
    ahead = "next" if not place.ahead else f"{place.ahead} ahead"
    waited = "" if waited_s is None else f" for {format_span(waited_s)}"
    text = f"waiting for a slot ({ahead}){waited}: {place.reason}"
    if place.next_hold_end is not None:
        left_s = max(0.0, place.next_hold_end - time.time())
        text += f"; the next hold ends in {format_span(left_s)}"
    return make_printable(text)


def _cut_line(text: str) -> str:
    """The text as far as one line of the terminal takes it; a second one could not be cleared."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - slow to load

    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except OSError:
        width = 79
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(1, width - 1))}…"


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(sys.stderr.fileno(), text.encode(sys.stderr.encoding, "backslashreplace"))
