"""Shows the same view again and again: on the screen of a terminal, else line after line.

A program that reads gets a view whenever it has changed; a person the newest one all the time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from ds01d.cli.output.blocks import Block, Sentence, Tone
from ds01d.cli.output.display import format_blocks
from ds01d.cli.output.live_screen import LiveScreen, wait_for_reader
from ds01d.cli.output.streams import is_screen
from ds01d.documents.values import DisplayTime
from ds01d.errors import Ds01Error
from ds01d.model.primitives import Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedView:
    """One look. `lines`: it as text that is no table (JSON, names); None: `blocks` are drawn.

    `key`: what has to differ for a program that reads to get it again.
    """

    blocks: Sequence[Block] = ()
    lines: Sequence[str] | None = None
    key: object = None


TakeView = Callable[[Wall], WatchedView]
"""Look now. Raises `Ds01Error`."""


def watch_view(take_view: TakeView, interval_s: float, title: str) -> None:
    """Show it until the reader ends it. Raises `Ds01Error` where the first look does.

    `title`: what is shown, for the first line of a screen.
    """
    first = take_view(Wall(time.time()))
    if first.lines is None and is_screen(sys.stdout):
        _draw_views(first, take_view, interval_s, title)
    else:
        _print_views(first, take_view, interval_s)


def _draw_views(view: WatchedView, take_view: TakeView, interval_s: float, title: str) -> None:
    from ds01d.cli.output.rich_renderer import render_screen  # noqa: PLC0415 - rich is slow to load

    with LiveScreen() as screen:
        due = time.monotonic() + interval_s
        while True:
            now = Wall(time.time())
            head = f"{title}, every {interval_s:g} s, {DisplayTime(now).to_local()} (q ends)"
            blocks = [Sentence(head, Tone.FAINT), Sentence(""), *view.blocks]
            screen.draw(render_screen(blocks, now, screen.size))
            if not screen.wait(max(0.0, due - time.monotonic())):
                return
            # A window that is being resized wakes up often, and nothing else has to be read.
            if time.monotonic() >= due:
                view = _look_again(take_view)
                due = time.monotonic() + interval_s


def _print_views(view: WatchedView, take_view: TakeView, interval_s: float) -> None:
    shown: object = None
    while True:
        if view.key != shown:
            shown, now = view.key, Wall(time.time())
            lines = view.lines
            if lines is None:
                lines = [DisplayTime(now).to_local(), *format_blocks(view.blocks, now), ""]
            # Flushed: a reader wants it now, not after 8 KiB.
            click.echo("".join(f"{line}\n" for line in lines), nl=False)
        if not wait_for_reader(interval_s):
            return
        view = _look_again(take_view, view if view.lines is not None else None)


def _look_again(take_view: TakeView, former: WatchedView | None = None) -> WatchedView:
    """Look; a failure is shown and ends nothing. `former`: to stay with, where text cannot say."""
    try:
        return take_view(Wall(time.time()))
    except Ds01Error as error:
        if former is not None:
            click.echo(str(error), err=True)
            return former
        return WatchedView(blocks=[Sentence(str(error), Tone.BAD)], key=str(error))
