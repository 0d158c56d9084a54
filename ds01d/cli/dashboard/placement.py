"""Places groups of rows side by side on a screen, as few columns as show all of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ds01d.cli.dashboard.columns import NARROWEST
from ds01d.cli.dashboard.row_groups import RowGroup
from ds01d.cli.dashboard.rows import Row

GAP = 2
_MOST_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Placement:
    """Where rows stand: columns from left to right, each `width` wide, rows from top to bottom."""

    columns: tuple[tuple[Row, ...], ...]
    width: int

    @property
    def height(self) -> int:
        return max(map(len, self.columns), default=0)


def place_groups(groups: Sequence[RowGroup], width: int, height: int) -> Placement:
    """As few columns as have room for all in `height` lines, else as many as `width` allows.

    A narrow column has less to say, so there are no more of them than it takes.
    """
    most = max(1, min(_MOST_COLUMNS, (width + GAP) // (NARROWEST + GAP)))
    for count in range(1, most):
        placement = _place_in(groups, count, width, height)
        if placement.height <= height:
            return placement
    return _place_in(groups, most, width, height)


def _place_in(groups: Sequence[RowGroup], count: int, width: int, height: int) -> Placement:
    blocks = [block for group in groups for block in _divide_group(group, height)]
    # Columns of equal height: a last one that is nearly empty wastes what others lack.
    total = sum(map(len, blocks))
    each = max([-(-total // count), *map(len, blocks)], default=0)
    # Blocks are not divided, so the lowest height at which they fit is found by trying.
    while len(columns := _fill_columns(blocks, each)) > count:
        each += 1
    return Placement(tuple(columns), max(1, (width - GAP * (count - 1)) // count))


def _fill_columns(blocks: Sequence[tuple[Row, ...]], height: int) -> list[tuple[Row, ...]]:
    columns: list[list[Row]] = [[]]
    for block in blocks:
        if len(columns[-1]) + len(block) > height and columns[-1]:
            columns.append([])
        columns[-1] += block
    return [tuple(column) for column in columns]


def _divide_group(group: RowGroup, height: int) -> Iterator[tuple[Row, ...]]:
    """What stays together: a GPU with its slots, elsewhere a heading with the row below it."""
    lines = group.lines
    # A GPU taller than the screen cannot stay together anyway.
    if group.together and len(lines) <= height:
        yield lines
        return
    first = 2 if group.heading is not None else 1
    if lines:
        yield lines[:first]
        yield from ((line,) for line in lines[first:])
