"""What a command shows: a few kinds of blocks, drawn plainly into a pipe and richly on a terminal.

The plain form is for scripts and stays: columns two spaces apart, one line a row however long, "-"
for nothing. All text is untrusted: control characters are escaped, markup is never understood.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import click

from ds01d.cli.output.text import DisplayTime, printable, shorten
from ds01d.model.primitives import Wall

if TYPE_CHECKING:
    from rich.console import Console

Document: TypeAlias = (
    bool | int | float | str | DisplayTime | Sequence["Document"] | Mapping[str, "Document"] | None
)


class Tone(str, Enum):
    """How something reads; on a terminal, its colour."""

    PLAIN = ""
    STRONG = "bold"
    GOOD = "green"
    WARN = "yellow"
    BAD = "bold red"
    FAINT = "dim"


@dataclass(frozen=True, slots=True)
class Toned:
    """A value with a tone."""

    value: Document
    tone: Tone


Cell: TypeAlias = Document | Toned


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Title:
    """The name of what follows, a line away from what comes before."""

    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, a line each; a list takes as many lines as it has parts."""

    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns. `details`: lines to show below each row, if any."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    details: Sequence[Sequence[str]] = ()


Block: TypeAlias = Sentence | Title | Facts | Table


def show(blocks: Iterable[Block], now: Wall) -> None:
    """Draw blocks on stdout. `now` is what moments are told beside."""
    if sys.stdout.isatty():
        from ds01d.cli.output.rich_renderer import draw  # noqa: PLC0415 - rich is slow to load

        draw(blocks, now)
        return
    for number, block in enumerate(blocks):
        if number and isinstance(block, Title):
            click.echo()
        for line in _plain(block, now):
            click.echo(line.rstrip())


def show_json(document: Document) -> None:
    """One object, in ASCII: nothing in it is obeyed by a terminal. Moments are in UTC."""
    click.echo(json.dumps(document, indent=2, default=_for_json))


# What anybody can write into a label, a name or a record is no wider than this, in characters. A
# cell makes its whole column as wide as itself. --json has all of it.
CELL, SENTENCE = 500, 2000


def cell_text(cell: Cell, now: Wall, *, brief: bool = False) -> str:
    """A value in a table, cut where it is too long for one."""
    return shorten(text(cell, now, brief=brief), CELL)


def text(cell: Cell, now: Wall, *, brief: bool = False) -> str:
    """A value as people read it. `brief`: a moment only beside now."""
    match cell:
        case Toned(value=value):
            return text(value, now, brief=brief)
        case None | "":
            return "-"
        case bool():
            return "yes" if cell else "no"
        case DisplayTime():
            return cell.away(now) if brief else f"{cell.local()} ({cell.away(now)})"
        case str():
            return shorten(cell, SENTENCE)
        case float():
            return f"{cell:g}"
        case int():
            return str(cell)
        case Mapping():
            parts = [f"{shorten(k, CELL)}={text(v, now, brief=brief)}" for k, v in cell.items()]
            return ", ".join(parts) or "-"
        case _:
            return ", ".join(text(part, now, brief=brief) for part in cell) or "-"


def lines(cell: Cell, now: Wall) -> list[str]:
    """A value of `Facts`: a list's parts stand below each other."""
    value = cell.value if isinstance(cell, Toned) else cell
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not value:
        return [text(value, now)]
    return [text(part, now) for part in value]


@contextmanager
def on_stderr(what: str) -> Iterator[None]:
    """Show what is waited for, while it is; where stderr is no terminal, as a line."""
    if not sys.stderr.isatty():
        click.echo(printable(what), err=True)
    with on_terminal(what):
        yield


@contextmanager
def on_terminal(what: str) -> Iterator[None]:
    """Show on a terminal what is waited for, while it is; elsewhere nothing (cron mails it)."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - slow to load
    from rich.text import Text  # noqa: PLC0415

    console: Console = Console(stderr=True)
    with console.status(Text(printable(what))):
        yield


def _plain(block: Block, now: Wall) -> Iterator[str]:
    match block:
        case Sentence(text=sentence):
            yield shorten(sentence, SENTENCE)
        case Title(text=name):
            yield shorten(name, CELL).upper()
        case Facts():
            rows = [(shorten(name, CELL), value) for name, value in block.rows]
            width = max((len(name) for name, _ in rows), default=0) + 2
            for name, value in rows:
                for number, line in enumerate(lines(value, now)):
                    yield f"{'' if number else name:{width}}{line}"
        case Table():
            yield from _plain_table(block, now)


def _plain_table(table: Table, now: Wall) -> Iterator[str]:
    rows = [[name.upper() for name in table.columns]]
    rows += [[cell_text(cell, now) for cell in row] for row in table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.columns))]
    for number, row in enumerate(rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        if number and table.details:
            for detail in table.details[number - 1]:
                yield f"    {shorten(detail, SENTENCE)}"


def _for_json(value: object) -> str:
    if isinstance(value, DisplayTime):
        return value.utc()
    raise TypeError(f"{type(value).__name__} is no part of a document")
