"""Figures: their values, and how they read as a table, as JSON and in the documentation."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

BEGIN: Final = "<!-- make bench: begin -->"
END: Final = "<!-- make bench: end -->"
_HEADS: Final = ("figure", "containers", "value", "unit", "floor", "ratio", "target", "met")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure. `floor`: what the machine took in the same run for what cannot be spared.

    `target` is an upper bound; None where there is none at this size. `note`: how to read it.
    """

    name: str
    containers: int
    value: float
    unit: str
    floor: float | None = None
    target: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How often the floor goes into the value."""
        return self.value / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether it keeps within the target, if it has one."""
        return None if self.target is None else self.value < self.target

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        return (
            self.name,
            f"{self.containers:,}",
            short(self.value),
            self.unit,
            "" if self.floor is None else short(self.floor),
            "" if self.ratio is None else f"{self.ratio:.1f}",
            "" if self.target is None else f"< {short(self.target)}",
            {None: "", True: "yes", False: "NO"}[self.met],
        )


def table(figures: Iterable[Figure]) -> list[str]:
    """Plain aligned lines."""
    rows = [_HEADS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if head in {"figure", "unit", "met"} else cell.rjust(width)
            for cell, width, head in zip(row, widths, _HEADS, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def short(value: float) -> str:
    """Three digits that matter, without exponents."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return percentile(values, 0.5)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def write_json(path: Path, facts: Mapping[str, object], figures: Iterable[Figure]) -> None:
    """Write facts of the machine and all figures."""
    rows = [{**asdict(one), "ratio": one.ratio, "met": one.met} for one in figures]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "figures": rows}, indent=2) + "\n", encoding="utf-8")


def write_docs(path: Path, lines: Iterable[str]) -> None:
    """Replace the marked block of a document by what was printed."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no block between {BEGIN} and {END}")
    block = "\n".join(["", "", "```text", *lines, "```", "", ""])
    path.write_text(f"{before}{BEGIN}{block}{END}{after}", encoding="utf-8")
