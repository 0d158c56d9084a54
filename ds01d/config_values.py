"""The kinds of values that a configuration has, and of its tables."""

from __future__ import annotations

from typing import Any

import msgspec

from ds01d import config_text


class Seconds(float):
    """A duration: written "10s", "2m", "1h30m", "500ms"; kept in seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Seconds:
        """Read a duration as it is written. Raises ValueError with what would be right."""
        return cls(config_text.parse_seconds(text))


class Durations(tuple[Seconds, ...]):
    """One duration or several, the longest first."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Durations:
        """Read "30m" or ["30m", "5m"]. Raises ValueError with what would be right."""
        several = value if isinstance(value, list) else [value]
        if not 1 <= len(several) <= 8:
            raise ValueError('write 1 to 8 durations, like ["30m", "5m"]')
        return cls(sorted({Seconds.parse(entry) for entry in several}, reverse=True))


class ConfigTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a key that it does not have is refused."""


def duration_field(name: str, default: float) -> Any:  # noqa: ANN401 - msgspec.field is typed so
    """A key for a duration in seconds."""
    return msgspec.field(name=name, default=Seconds(default))
