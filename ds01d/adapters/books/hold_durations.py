"""How long a hold lasts, as resource-limits.yaml writes it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ds01d.adapters.books.strict_yaml import DuplicateKey, describe_value

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})\s*([smhdw])\s*")
_DURATION = re.compile(rf"(?:{_NUMBER}\s*[smhdw]\s*)+")
_BARE = re.compile(_NUMBER)
_UNLIMITED = {"", "indefinite", "never"}
_EXAMPLES = 'write it like "24h", "1h30m", "0.5h" or "never"'
_MAX_S = 100 * 366 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Seconds, None for ever; for ever with a `problem`: an invalid value ends no retention."""

    seconds: float | None
    problem: str = ""


def parse_hold(value: object) -> Duration:
    """Read a hold: "24h", "1h30m", a quoted bare number of hours, null. Total: it never raises."""
    if value is None:
        return Duration(seconds=None)
    if isinstance(value, DuplicateKey):
        return Duration(seconds=None, problem="duplicate key")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Duration(
            seconds=None, problem=f"{describe_value(value)} has no unit: {_suggest_unit(value)}"
        )
    if not isinstance(value, str):
        return Duration(
            seconds=None, problem=f"invalid duration {describe_value(value)}: {_EXAMPLES}"
        )
    text = value.strip()
    if text.lower() in _UNLIMITED:
        return Duration(seconds=None)
    seconds = _parse_seconds(text)
    if seconds is None or seconds > _MAX_S:
        return Duration(
            seconds=None, problem=f"invalid duration {describe_value(value)}: {_EXAMPLES}"
        )
    return Duration(seconds=seconds)


def _parse_seconds(text: str) -> float | None:
    if _BARE.fullmatch(text):
        return float(text) * 3600.0
    if not _DURATION.fullmatch(text):
        return None
    parts = _PART.findall(text)
    if len({unit for _, unit in parts}) < len(parts):
        return None  # "1h2h": a slip, and no telling which
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _suggest_unit(value: float) -> str:
    if isinstance(value, int) and value > 0:
        return f'write "{value}h" or "{value}m"'
    return 'write "0h" for at once, or "never"'
