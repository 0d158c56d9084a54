"""One call of `ds01-allocator`: its arguments, its answer on stdout, its warnings on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds01d.errors import Ds01Error

if TYPE_CHECKING:
    from pathlib import Path

NAME = "ds01-allocator"


class UsageError(Ds01Error):
    """A wrong call."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call, taken apart."""

    command: str
    arguments: tuple[str, ...]
    config_file: Path | None = None
    as_json: bool = False


def write_lines(lines: Iterable[str]) -> None:
    """Answer on stdout, now. Raises `OSError` if nobody can get it."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    # Flush now: a full disk must fail here, where the booking can still be released.
    sys.stdout.flush()


def print_warnings(lines: Iterable[str]) -> None:
    """Warn on stderr, a line each; where nobody can read it, that stops nothing."""
    from ds01d.text import make_printable  # noqa: PLC0415

    # A warning that nobody can read must not turn a booking into a failure.
    with suppress(OSError):
        for line in lines:
            sys.stderr.write(f"{NAME}: {make_printable(line)}\n")
