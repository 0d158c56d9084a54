"""Drawing blocks on a terminal, in colour. Loaded only where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import accumulate

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from ds01d.cli.output.blocks import Block, Cell, Facts, Sentence, Table, Title, Tone, Toned
from ds01d.cli.output.cells import CELL, NOTHING, SENTENCE, fact_lines, format_cell
from ds01d.cli.output.text import shorten_text
from ds01d.model.primitives import Wall

_GAP = "  "
_BETWEEN, _EDGES = 3, 2  # what a table takes beside its cells
_ROOM = 32
_INDENT = 4


def draw_blocks(blocks: Iterable[Block], now: Wall) -> None:
    """Draw on stdout."""
    console = Console(highlight=False, emoji=False, markup=False)
    for renderable in render_blocks(blocks, now, console.width):
        console.print(renderable)


def render_screen(blocks: Iterable[Block], now: Wall, size: os.terminal_size) -> list[str]:
    """Blocks as lines with the codes of their colours, for a screen of that size."""
    console = Console(
        highlight=False, emoji=False, markup=False, width=size.columns, height=size.lines
    )
    with console.capture() as captured:
        for renderable in render_blocks(blocks, now, size.columns):
            console.print(renderable)
    return captured.get().rstrip("\n").split("\n")


def render_blocks(blocks: Iterable[Block], now: Wall, width: int) -> Iterator[RenderableType]:
    """Blocks as rich draws them. Every text is a `Text`, so nothing in it is taken for markup."""
    for number, block in enumerate(blocks):
        if number and isinstance(block, Title):
            yield Text()
        match block:
            case Sentence(text=sentence, tone=tone):
                yield Text(shorten_text(sentence, SENTENCE), style=tone.value)
            case Title(text=name):
                yield Text(shorten_text(name, CELL).upper(), style=Tone.STRONG.value)
            case Facts():
                yield _render_facts(block, now)
            case Table():
                yield from (
                    [_render_table(block, now)]
                    if _fits_width(block, now, width)
                    else _render_stacked(block, now, width)
                )


def _render_facts(facts: Facts, now: Wall) -> Grid:
    grid = Grid(box=None, show_header=False, pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.rows:
        grid.add_row(
            Text(shorten_text(name, CELL), style=Tone.FAINT.value),
            Text("\n".join(fact_lines(value, now)), style=_cell_style(value)),
        )
    return grid


def _render_table(table: Table, now: Wall) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style=Tone.STRONG.value)
    for number, name in enumerate(table.columns):
        last = number == len(table.columns) - 1
        grid.add_column(Text(name.upper()), overflow="fold", ratio=1 if last else None)
    for number, row in enumerate(table.rows):
        cells = [Text(format_cell(cell, now, brief=True), style=_cell_style(cell)) for cell in row]
        if table.details:
            for detail in table.details[number]:
                cells[-1].append(f"\n{shorten_text(detail, SENTENCE)}", style=Tone.FAINT.value)
        grid.add_row(*cells)
    return grid


def _column_widths(table: Table, now: Wall) -> list[int]:
    """How wide each column wants to be."""
    shown = [[format_cell(cell, now, brief=True) for cell in row] for row in table.rows]
    columns = zip(table.columns, *shown, strict=True)
    return [max(map(cell_len, column)) for column in columns]


def _fits_width(table: Table, now: Wall, width: int) -> bool:
    """Whether names can stand unbroken with enough room for the last column beside them."""
    *wanted, last = _column_widths(table, now)
    # Below this the last column would wrap to a few characters per line, so rows are stacked.
    room = _ROOM if table.details else min(last, _ROOM)
    return sum(wanted) + _BETWEEN * len(wanted) + room + _EDGES <= width


def _render_stacked(table: Table, now: Wall, width: int) -> Iterator[RenderableType]:
    """Draw a row on a line; below it what has no room there, the last column and the details."""
    *widths, last = _column_widths(table, now)
    # As many columns as fit whole: a folded row cannot be read as one.
    ends = accumulate(len(_GAP) + column for column in widths)
    fitting = max(1, sum(end - len(_GAP) <= width for end in ends))
    heads = (name.upper().ljust(size) for name, size in zip(table.columns, widths, strict=False))
    yield Text()
    yield Text(_GAP.join([*heads][:fitting]).rstrip(), style=Tone.STRONG.value)
    # A last column of sentences needs no name beside them.
    named = len(table.columns) - (last > _ROOM)
    for number, row in enumerate(table.rows):
        cells = [Text(format_cell(cell, now, brief=True), style=_cell_style(cell)) for cell in row]
        below = [
            Text(f"{name} ", style=Tone.FAINT.value).append_text(cell)
            for name, cell in zip(table.columns[fitting:named], cells[fitting:named], strict=True)
            if cell.plain != NOTHING
        ]
        lines = [Text(_GAP).join(below)] if below else []
        lines += cells[named:]
        if table.details:
            lines += [
                Text(shorten_text(detail, SENTENCE), style=Tone.FAINT.value)
                for detail in table.details[number]
            ]
        for cell, size in zip(cells[: fitting - 1], widths, strict=False):
            cell.pad_right(size - cell.cell_len)
        yield Text(_GAP).join(cells[:fitting])
        yield from (Padding(line, (0, 0, 0, _INDENT), expand=False) for line in lines)
    yield Text()


def _cell_style(cell: Cell) -> str:
    return cell.tone.value if isinstance(cell, Toned) else ""
