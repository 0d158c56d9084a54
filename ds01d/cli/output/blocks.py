"""The kinds of blocks that a command's output is made of. Values only: renderers draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from ds01d.documents.values import Document


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
