"""Shows blocks on stdout: plainly in a pipe, richly on a terminal; progress on stderr.

The plain form is for scripts and stays: columns two spaces apart, one line a row however long, "-"
for nothing. All text is untrusted: control characters are escaped, markup is never understood.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ds01d.cli.output.blocks import Block, Facts, Sentence, Table, Title
from ds01d.cli.output.cells import CELL, SENTENCE, fact_lines, format_cell
from ds01d.cli.output.text import shorten_text
from ds01d.documents.output_versions import Output, name_version
from ds01d.documents.values import DisplayTime, Document, DocumentPart
from ds01d.model.primitives import Wall
from ds01d.text import make_printable

if TYPE_CHECKING:
    from rich.console import Console


def show_blocks(blocks: Iterable[Block], now: Wall) -> None:
    """Draw blocks on stdout. `now`: the time that moments are relative to."""
    # Scripts get the plain form, whose layout stays.
    if sys.stdout.isatty():
        from ds01d.cli.output.rich_renderer import draw_blocks  # noqa: PLC0415 - rich is slow to load

        draw_blocks(blocks, now)
        return
    for line in format_blocks(blocks, now):
        click.echo(line)


def format_blocks(blocks: Iterable[Block], now: Wall) -> Iterator[str]:
    """The lines of blocks in the plain form."""
    for number, block in enumerate(blocks):
        if number and isinstance(block, Title):
            yield ""
        yield from (line.rstrip() for line in _plain_lines(block, now))


def show_json(output: Output, document: Mapping[str, Document] | DocumentPart) -> None:
    """One object, in ASCII: nothing in it is obeyed by a terminal. Moments are in UTC."""
    click.echo(format_json(output, document))


def format_json(
    output: Output, document: Mapping[str, Document] | DocumentPart, *, indent: int | None = 2
) -> str:
    """As `show_json`. `indent` None: all of it on one line."""
    keys = _list_keys(document) if isinstance(document, DocumentPart) else document
    # First, so that people see it as well. Decision 291.
    versioned = {"schema": name_version(output), **keys}
    # ASCII: names in the books may hold anything, and terminals obey some of it.
    return json.dumps(versioned, indent=indent, default=_for_json)


@contextmanager
def announce_on_stderr(message: str) -> Iterator[None]:
    """Show what is waited for, while it is; where stderr is no terminal, as a line."""
    if not sys.stderr.isatty():
        click.echo(make_printable(message), err=True)
    with announce_on_terminal(message):
        yield


@contextmanager
def announce_on_terminal(message: str) -> Iterator[None]:
    """Show on a terminal what is waited for, while it is; elsewhere nothing (cron mails it)."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - slow to load
    from rich.text import Text  # noqa: PLC0415

    console: Console = Console(stderr=True)
    with console.status(Text(make_printable(message))):
        yield


def _plain_lines(block: Block, now: Wall) -> Iterator[str]:
    match block:
        case Sentence(text=sentence):
            yield shorten_text(sentence, SENTENCE)
        case Title(text=name):
            yield shorten_text(name, CELL).upper()
        case Facts():
            rows = [(shorten_text(name, CELL), value) for name, value in block.rows]
            width = max((len(name) for name, _ in rows), default=0) + 2
            for name, value in rows:
                for number, line in enumerate(fact_lines(value, now)):
                    yield f"{'' if number else name:{width}}{line}"
        case Table():
            yield from _plain_table_lines(block, now)


def _plain_table_lines(table: Table, now: Wall) -> Iterator[str]:
    rows = [[name.upper() for name in table.columns]]
    rows += [[format_cell(cell, now) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        yield "  ".join(map(str.ljust, row, widths))
        if number and table.details:
            for detail in table.details[number - 1]:
                yield f"    {shorten_text(detail, SENTENCE)}"


def _list_keys(part: DocumentPart) -> dict[str, object]:
    names = zip(part.__struct_encode_fields__, part.__struct_fields__, strict=True)
    return {key: getattr(part, name) for key, name in names}


def _for_json(value: object) -> object:
    if isinstance(value, DisplayTime):
        return value.to_utc()
    if isinstance(value, DocumentPart):
        return _list_keys(value)
    import msgspec  # noqa: PLC0415 - few documents need it

    return msgspec.to_builtins(value)
