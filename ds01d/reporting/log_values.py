"""The values of a log entry as clean data: printable, of one line, of bounded length. Pure."""

from __future__ import annotations

import math

from ds01d.text import make_printable

Plain = None | bool | int | float | str | list["Plain"]

MAX_TEXT_LENGTH = 4000
_MAX_ITEMS = 100


def escape_line(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """`text` as one printable line of at most `longest` characters."""
    if len(text) > longest:
        text = f"{text[:longest]}… ({len(text)} characters)"
    return make_printable(text)


def clean_value(value: object) -> Plain:
    """Any value as JSON data: numbers and booleans as they are, the rest as clean text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # JSON has neither NaN nor infinity, and strict readers refuse the line.
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple | set | frozenset):
        # A set has another order in each process; lines are compared and searched.
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
        more = [f"… ({len(items)} in all)"] if len(items) > _MAX_ITEMS else []
        return [clean_value(item) for item in [*items[:_MAX_ITEMS], *more]]
    try:
        return escape_line(str(value))
    except Exception:  # noqa: BLE001 - a foreign __str__
        return f"<{type(value).__name__}>"


def value_text(value: Plain) -> str:
    """A cleaned value as one text; "" for None and an empty list."""
    if isinstance(value, list):
        return escape_line(", ".join(value_text(item) for item in value))
    return "" if value is None else str(value)
