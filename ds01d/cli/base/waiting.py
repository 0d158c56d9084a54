"""Shows a caller who waits for a slot where they stand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ds01d.text import format_span, make_printable

if TYPE_CHECKING:
    from ds01d.service.allocator_client import Waiting


def show_place(place: Waiting) -> None:
    """One line on stderr: the place, why there is no slot, and when a hold ends."""
    ahead = "next" if not place.ahead else f"{place.ahead} ahead"
    text = f"waiting for a slot ({ahead}): {place.reason}"
    if place.next_hold_end is not None:
        left_s = max(0.0, place.next_hold_end - time.time())
        text += f"; the next hold ends in {format_span(left_s)}"
    click.echo(make_printable(text), err=True)
