"""Lines of the operations log as documents, as table, and as single lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import click

from ds01d.adapters.books.operations_format import parse_line
from ds01d.adapters.books.timestamps import format_log_time
from ds01d.cli.output.blocks import Cell, Table, Tone, Toned
from ds01d.cli.output.cells import CELL
from ds01d.cli.output.text import shorten_text
from ds01d.documents.values import DisplayTime, Document
from ds01d.model.books import LogLine

COLUMNS = ("time", "operation", "user", "container", "gpu", "status", "details")
_WIDTHS = (19, 14, 10, 22, 6, 8)
_TONES = {
    "pending": Tone.WARN,
    "success": Tone.GOOD,
    "done": Tone.GOOD,
    "failed": Tone.BAD,
    "error": Tone.BAD,
}
_COLOURS = {Tone.WARN: "yellow", Tone.GOOD: "green", Tone.BAD: "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """A line as text and parsed; `line` is None if it is invalid."""

    text: str
    line: LogLine | None

    @classmethod
    def parse(cls, text: str) -> LogRow:
        return cls(text=text, line=parse_line(text))


def log_document(row: LogRow) -> dict[str, Document]:
    """A line as an object; an invalid one has "unreadable" alone."""
    line = row.line
    if line is None:
        return {"unreadable": row.text}
    return {
        "at": DisplayTime(line.at).to_utc(),
        "operation": line.operation,
        "user": line.user,
        "container": line.container,
        "gpu": line.gpu,
        "status": line.status,
        "details": line.details,
    }


def log_table(lines: Iterable[LogRow]) -> Table:
    """Rows as a table."""
    return Table(COLUMNS, [_row_cells(row) for row in lines])


def _row_cells(row: LogRow) -> list[Cell]:
    line = row.line
    if line is None:
        return [None, Toned("unreadable", Tone.BAD), None, None, None, None, row.text]
    status = Toned(line.status, _TONES.get(line.status, Tone.PLAIN))
    subject: list[Cell] = [line.user, line.container, line.gpu]
    return [format_log_time(line.at), line.operation, *subject, status, line.details]


def log_line(row: LogRow) -> str:
    """One row in columns of fixed widths, since later rows are not known yet."""
    cells = [cell.value if isinstance(cell, Toned) else cell for cell in _row_cells(row)]
    words = [shorten_text(str(cell or "-"), CELL) for cell in cells]
    shown = [word.ljust(width) for word, width in zip(words, _WIDTHS, strict=False)]
    colour = _COLOURS.get(_TONES.get(words[5], Tone.PLAIN if row.line else Tone.BAD))
    shown[5 if row.line else 1] = click.style(shown[5 if row.line else 1], fg=colour)
    return "  ".join([*shown, words[-1]])
