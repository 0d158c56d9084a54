"""What stands above the rows, since it puts them in doubt, in lines of the screen's width. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

from ds01d.cli.dashboard.cells import Piece, Pieces, clean_text, join_pieces
from ds01d.cli.output.blocks import Sentence

_MOST_EACH, _MOST = 2, 6


def notice_lines(sentences: Iterable[Sentence], width: int) -> tuple[Pieces, ...]:
    """The sentences, each in two lines at most, all of them in six: the rows stay in view."""
    lines: list[Pieces] = []
    # A reason may be a driver's page of text.
    for sentence in sentences:
        texts = wrap(
            clean_text(sentence.text), max(10, width), max_lines=_MOST_EACH, placeholder=" …"
        )
        lines += [join_pieces([Piece(text, sentence.tone)], width) for text in texts]
    return tuple(lines[:_MOST])
