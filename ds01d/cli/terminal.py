"""Drawing blocks on a terminal, in colour. Loaded only where there is one."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ds01d.cli.screen import Block, Cell, Facts, Line, Table, Title, Tone, Toned, lines, text
from ds01d.cli.words import printable
from ds01d.model.facts import Wall


def draw(blocks: Iterable[Block], now: Wall) -> None:
    """Draw on stdout. Every text is a `Text`, so nothing in it is taken for markup."""
    console = Console(highlight=False, emoji=False, markup=False)
    for block in blocks:
        match block:
            case Line(text=sentence, tone=tone):
                console.print(Text(printable(sentence), style=tone.value))
            case Title(text=name):
                console.print()
                console.print(Text(printable(name), style=Tone.STRONG.value))
            case Facts():
                console.print(_facts(block, now))
            case Table():
                console.print(_table(block, now))


def _facts(facts: Facts, now: Wall) -> Grid:
    grid = Grid(box=None, show_header=False, pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.rows:
        grid.add_row(
            Text(printable(name), style=Tone.FAINT.value),
            Text("\n".join(lines(value, now)), style=_tone(value)),
        )
    return grid


def _table(table: Table, now: Wall) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style=Tone.STRONG.value)
    for number, name in enumerate(table.columns):
        last = number == len(table.columns) - 1
        grid.add_column(Text(name), overflow="fold", ratio=1 if last else None)
    for number, row in enumerate(table.rows):
        cells = [Text(text(cell, now, brief=True), style=_tone(cell)) for cell in row]
        if table.details:
            for detail in table.details[number]:
                cells[-1].append(f"\n{printable(detail)}", style=Tone.FAINT.value)
        grid.add_row(*cells)
    return grid


def _tone(cell: Cell) -> str:
    return cell.tone.value if isinstance(cell, Toned) else ""
