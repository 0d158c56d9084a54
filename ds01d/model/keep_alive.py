"""The label by which a container is meant to run without using its GPU, until an end. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from ds01d import config_text
from ds01d.model.primitives import Wall

KEEP_ALIVE_LABEL: Final = "ds01.keep_alive"
_DAY_S: Final = 86_400.0
LONGEST_S: Final = 30 * _DAY_S
"""Users write the label themselves, so that it must not exempt a container for ever."""

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK: Final = r"[0-9]{2}:[0-9]{2}"
_TIME: Final = re.compile(rf"({_DATE.pattern})[Tt ]({_CLOCK}(?::[0-9]{{2}})?)([Zz]|[+-]{_CLOCK})")
_EXPECTED: Final = 'expected a duration since its creation, like "72h" or "3d", a day or a time'


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAlive:
    """`until` None: it exempts from nothing, because of a `problem` with the label."""

    until: Wall | None = None
    problem: str = ""


def find_keep_alive(labels: Mapping[str, str], created: Wall | None) -> KeepAlive | None:
    """Until when the label exempts a container that was made at `created`; None without one.

    A duration counts from its creation, a day lasts until its end in UTC, a time has a zone. None
    of them counts for longer than `LONGEST_S` after the creation.
    """
    text = labels.get(KEEP_ALIVE_LABEL)
    if text is None:
        return None
    if created is None:
        return KeepAlive(problem="Docker has no valid time of its creation")
    until = _parse_end(text.strip(), created)
    if until is None:
        return KeepAlive(problem=f'{_EXPECTED} with its zone, like "2026-12-24T18:00Z"')
    return KeepAlive(until=Wall(min(until, created + LONGEST_S)))


def _parse_end(text: str, created: Wall) -> float | None:
    try:
        if _DATE.fullmatch(text):
            day = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
            return day.timestamp() + _DAY_S
        if match := _TIME.fullmatch(text):
            day_text, time, zone = match.groups()
            # Python 3.10 reads no "Z".
            offset = "+00:00" if zone in "Zz" else zone
            return datetime.fromisoformat(f"{day_text}T{time}{offset}").timestamp()
        return created + config_text.parse_seconds(text)
    except (ValueError, OverflowError):
        return None
