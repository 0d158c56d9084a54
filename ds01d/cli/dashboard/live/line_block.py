"""Lines of pieces as textual draws them: only the lines that changed are drawn again."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ds01d.cli.dashboard.cells import Pieces
from ds01d.cli.dashboard.live.theme import SELECTED, tone_style


def make_segments(pieces: Pieces, style: Style) -> list[Segment]:
    """Pieces for textual; each on top of `style`."""
    return [Segment(piece.text, style + tone_style(piece.tone)) for piece in pieces]


class LineBlock(Widget):
    """Some lines, as many as there are now; `is_reverse`: drawn as a bar."""

    DEFAULT_CSS = """
    LineBlock { height: 0; }
    """
    ALLOW_SELECT = False

    def __init__(self, *, id: str, is_reverse: bool = False) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id)
        self._lines: tuple[Pieces, ...] = ()
        self._style = SELECTED if is_reverse else Style()

    @property
    def text(self) -> str:
        """What is drawn, without its style."""
        return "\n".join("".join(piece.text for piece in line) for line in self._lines)

    def show_lines(self, lines: Sequence[Pieces]) -> None:
        """Draw these from now on."""
        before, self._lines = self._lines, tuple(lines)
        if len(before) != len(self._lines):
            # A style that is set, even to the same value, has everything laid out again.
            self.styles.height = len(self._lines)
            self.refresh()
            return
        for number, (old, new) in enumerate(zip(before, self._lines, strict=True)):
            if old != new:
                self.refresh(Region(0, number, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        # textual asks for lines of the height before, until it has laid out again.
        if y >= len(self._lines):
            return Strip.blank(self.size.width, self.rich_style)
        strip = Strip(make_segments(self._lines[y], self.rich_style + self._style))
        return strip.adjust_cell_length(self.size.width, self.rich_style + self._style)
