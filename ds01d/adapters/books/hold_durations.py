"""How long a hold lasts, as resource-limits.yaml writes it. Pure.

Two formats: `gpu_hold_after_stop` is a text with units, the keys that end in `_h` are hours.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ds01d.adapters.books.strict_yaml import DuplicateKey, describe_value

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_HOUR = 3600.0
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})\s*([smhdw])\s*")
_DURATION = re.compile(rf"(?:{_NUMBER}\s*[smhdw]\s*)+")
_BARE = re.compile(_NUMBER)
_UNLIMITED = {"", "indefinite", "never"}
_UNLIMITED_HOURS = _UNLIMITED | {"none", "null"}
_EXAMPLES = 'write it like "24h", "1h30m", "0.5h" or "never"'
_HOURS_EXAMPLES = "write hours, like 0.25, or null"
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
        return _make_invalid(value, _EXAMPLES)
    text = value.strip()
    if text.lower() in _UNLIMITED:
        return Duration(seconds=None)
    seconds = _parse_seconds(text)
    if seconds is None or seconds > _MAX_S:
        return _make_invalid(value, _EXAMPLES)
    return Duration(seconds=seconds)


def parse_hold_hours(value: object) -> Duration:
    """Read a hold in hours: a number, a text that the lab's scripts read alike, null. Total."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        # Decision 222: the lab's allocator holds for ever, and its author meant not at all.
        problem = (
            'the number 0 is for ever for the lab\'s allocator: write "0" for at once, or null'
        )
        return Duration(seconds=None, problem=problem)
    hours = _parse_hours(value)
    if hours.problem or not isinstance(value, str) or hours.seconds is None:
        return hours
    in_lab = _read_as_allocator(value)
    if math.isclose(in_lab, hours.seconds, abs_tol=1e-3):
        return hours
    text = describe_value(value)
    problem = f"{text} is {in_lab / _HOUR:g} hours for the lab's allocator: {_suggest_hours(hours)}"
    return Duration(seconds=None, problem=problem)


def parse_limit_hours(value: object, *, is_zero_at_once: bool) -> Duration:
    """Read hours after which the lab's scripts act; never with a `problem` where it is invalid.

    Of what the scripts misread, what is meant, and a `problem`.
    """
    hours = _parse_hours(value)
    if hours.seconds == 0 and not is_zero_at_once:
        return Duration(seconds=None, problem="0 is no limit for the lab's scripts: write null")
    is_number = not isinstance(value, str) or _BARE.fullmatch(value.strip()) is not None
    if is_number or hours.seconds is None:
        return hours
    acts = "at once" if is_zero_at_once else "no limit"
    return Duration(
        seconds=hours.seconds,
        problem=f"{describe_value(value)} is {acts} for the lab's scripts: {_suggest_hours(hours)}",
    )


def parse_idle_time(value: object, *, in_hours: bool) -> Duration:
    """Read after which time an idle container is reported; never where that is invalid. Total."""
    duration = _parse_hours(value) if in_hours else parse_hold(value)
    if duration.seconds != 0:
        return duration
    example = "hours, like 4," if in_hours else '"4h"'
    return Duration(
        seconds=None, problem=f"a container that runs is not idle at once: write {example} or null"
    )


def _parse_hours(value: object) -> Duration:
    """Hours as they are meant."""
    if value is None:
        return Duration(seconds=None)
    if isinstance(value, DuplicateKey):
        return Duration(seconds=None, problem="duplicate key")
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _UNLIMITED_HOURS:
            return Duration(seconds=None)
        seconds = _parse_seconds(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value * _HOUR
    else:
        seconds = None
    if seconds is None or not 0 <= seconds <= _MAX_S:
        return _make_invalid(value, _HOURS_EXAMPLES)
    return Duration(seconds=seconds)


def _read_as_allocator(text: str) -> float:
    """The seconds that the lab's allocator takes a text of a valid duration for."""
    number = _BARE.search(text)
    value = float(number[0]) if number else 0.0
    return value * next((_SECONDS[unit] for unit in "hdm" if unit in text), _HOUR)


def _parse_seconds(text: str) -> float | None:
    if _BARE.fullmatch(text):
        return float(text) * _HOUR
    if not _DURATION.fullmatch(text):
        return None
    parts = _PART.findall(text)
    if len({unit for _, unit in parts}) < len(parts):
        return None  # "1h2h": a slip, and no telling which
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _make_invalid(value: object, examples: str) -> Duration:
    return Duration(seconds=None, problem=f"invalid duration {describe_value(value)}: {examples}")


def _suggest_unit(value: float) -> str:
    if isinstance(value, int) and value > 0:
        return f'write "{value}h" or "{value}m"'
    return 'write "0h" for at once, or "never"'


def _suggest_hours(duration: Duration) -> str:
    return f"write {(duration.seconds or 0.0) / _HOUR:.6g}"
