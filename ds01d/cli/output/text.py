"""Untrusted text as it is shown to people: escaped and cut."""

from __future__ import annotations

from ds01d.text import make_printable


def shorten_text(text: str, most: int) -> str:
    """The text as it may be shown, with an ellipsis where it is cut to `most` characters."""
    # Cut first: escaping a megabyte to show a line of it would take a while.
    shown = make_printable(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
