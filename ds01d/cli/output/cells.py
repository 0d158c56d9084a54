"""Values of blocks as text, shared by the plain and the rich renderer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ds01d.cli.output.blocks import Cell, Toned
from ds01d.cli.output.text import shorten_text
from ds01d.documents.values import DisplayTime
from ds01d.model.primitives import Wall

# What anybody can write into a label, a name or a record is no wider than this, in characters. A
# cell makes its whole column as wide as itself. --json has all of it.
CELL, SENTENCE = 500, 2000
NOTHING = "-"


def format_cell(cell: Cell, now: Wall, *, brief: bool = False) -> str:
    """A value in a table, cut where it is too long for one."""
    # Nearly all cells, of which a status has thousands, are shown as they are.
    value = cell.value if isinstance(cell, Toned) else cell
    if value is None:
        return NOTHING
    if isinstance(value, str) and 0 < len(value) <= CELL and value.isprintable():
        return value
    # A label of a megabyte must not push all other columns off the screen.
    return shorten_text(format_value(cell, now, brief=brief), CELL)


def format_value(cell: Cell, now: Wall, *, brief: bool = False) -> str:
    """A value as people read it. `brief`: a moment only beside now."""
    match cell:
        case Toned(value=value):
            return format_value(value, now, brief=brief)
        case None | "":
            return NOTHING
        case bool():
            return "yes" if cell else "no"
        case DisplayTime():
            return (
                cell.relative_to(now) if brief else f"{cell.to_local()} ({cell.relative_to(now)})"
            )
        case str():
            return shorten_text(cell, SENTENCE)
        case float():
            return f"{cell:g}"
        case int():
            return str(cell)
        case Mapping():
            parts = [
                f"{shorten_text(k, CELL)}={format_value(v, now, brief=brief)}"
                for k, v in cell.items()
            ]
            return ", ".join(parts) or NOTHING
        case Sequence():
            return ", ".join(format_value(part, now, brief=brief) for part in cell) or NOTHING
        case _:
            raise TypeError(f"{type(cell).__name__} is not shown in a cell")


def fact_lines(cell: Cell, now: Wall) -> list[str]:
    """A value of `Facts`: a list's parts stand below each other."""
    value = cell.value if isinstance(cell, Toned) else cell
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not value:
        return [format_value(value, now)]
    return [format_value(part, now) for part in value]
