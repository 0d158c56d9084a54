"""Text of an exact width on a terminal: names cut, bars, short spans, shares. Pure.

All text is untrusted. A character may take two columns, one, or none at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from rich.cells import cell_len, get_character_cell_size

from ds01d.cli.output.blocks import Tone
from ds01d.cli.output.text import shorten_text

UNKNOWN = "?"
_ELLIPSIS = "…"
_FULL, _HALF, _EMPTY = "█", "▌", "·"
_MOST = 300
_SPANS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Piece(NamedTuple):
    """A part of a line, in one tone."""

    text: str
    tone: Tone = Tone.PLAIN


Pieces: TypeAlias = tuple[Piece, ...]


def clean_text(text: str) -> str:
    """Untrusted text as it may be drawn: no control character, nothing without a width."""
    shown = shorten_text(text, _MOST)
    # Nearly all names; every cell of every look comes through here.
    if shown.isascii():
        return shown
    # Marks that combine can be piled up without end, over the lines above and below.
    return "".join(sign for sign in shown if get_character_cell_size(sign) > 0)


def fit_text(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` columns of it, with an ellipsis where it is cut; `right`: at the right."""
    shown = clean_text(text)
    size = cell_len(shown)
    # Cut by columns, not by characters: a wide one would push the rest of the line.
    if size > width:
        shown = _cut_text(shown, width - 1) + _ELLIPSIS if width > 0 else ""
        size = cell_len(shown)
    room = " " * (width - size)
    return f"{room}{shown}" if right else f"{shown}{room}"


def text_width(text: str) -> int:
    """How many columns it takes, uncut."""
    return cell_len(clean_text(text))


def join_pieces(parts: Iterable[Piece], width: int) -> Pieces:
    """The parts on a line of exactly `width` columns: cut, or filled up."""
    pieces: list[Piece] = []
    left = width
    for part in parts:
        text = clean_text(part.text)
        size = cell_len(text)
        if size > left:
            text, size = fit_text(text, left), left
        if text:
            pieces.append(Piece(text, part.tone))
        left -= size
    if left:
        pieces.append(Piece(" " * left))
    return tuple(pieces)


def draw_bar(share: float | None, width: int) -> str:
    """A bar of `width` columns. Empty and unknown are not alike: "····" and "????"."""
    if share is None:
        return UNKNOWN * width
    # What is used at all is seen: a bar of nothing would be a slot that nobody uses.
    halves = max(round(share * 2 * width), 1 if share > 0 else 0)
    full, half = divmod(halves, 2)
    return f"{_FULL * full}{_HALF * half}".ljust(width, _EMPTY)


def format_share(share: float | None) -> str:
    """A share in percent: "34%", or "?" where it is not known."""
    return UNKNOWN if share is None else f"{share * 100:.0f}%"


def format_memory(used: int | None, total: int | None) -> str:
    """Used and whole memory in GiB: "3.1/10G", with "?" for what is not known."""
    return f"{_format_gib(used)}/{_format_gib(total)}G"


def format_short_span(seconds: float, *, brief: bool = False) -> str:
    """A span as kubectl writes it: "45s", "12m", "3h20m", "12d4h"; `brief`: in one unit."""
    left = max(0, int(seconds))
    for place, (size, unit) in enumerate(_SPANS):
        count, rest = divmod(left, size)
        if not count and unit != "s":
            continue
        # Seconds beside minutes would have every row drawn with every look.
        below = _SPANS[place + 1] if place + 1 < len(_SPANS) - 1 else None
        more = rest // below[0] if below is not None and not brief else 0
        return f"{count}{unit}{more}{below[1]}" if more and below is not None else f"{count}{unit}"
    return "0s"


def _cut_text(text: str, width: int) -> str:
    """As many characters as `width` columns have room for."""
    left, fitting = width, []
    for sign in text:
        left -= get_character_cell_size(sign)
        if left < 0:
            break
        fitting.append(sign)
    return "".join(fitting)


def _format_gib(size: int | None) -> str:
    if size is None:
        return UNKNOWN
    gib = size / 2**30
    return f"{gib:.0f}" if gib >= 100 or gib == round(gib) else f"{gib:.1f}"
