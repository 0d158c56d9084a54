"""The values that documents are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeAlias

import msgspec

from ds01d.model.drift import Finding
from ds01d.model.primitives import Boot, Now, Wall
from ds01d.text import describe_moment


@dataclass(frozen=True, slots=True)
class DisplayTime:
    """A moment, shown to people in local time and beside now, to programs in UTC."""

    at: Wall

    @classmethod
    def from_boot(cls, boot: Boot, now: Now) -> DisplayTime:
        """A moment on CLOCK_BOOTTIME, as the wall clock will have it."""
        return cls(Wall(now.wall + (boot - now.boot)))

    def to_utc(self) -> str:
        """ISO, UTC."""
        return _to_datetime(self.at).isoformat(timespec="seconds")

    def to_local(self) -> str:
        """ISO, local, with the offset."""
        return _to_datetime(self.at).astimezone().isoformat(timespec="seconds")

    def relative_to(self, now: Wall) -> str:
        """Beside now: "in 1 m 52 s", "3 h ago"."""
        return describe_moment(self.at - now)


class DocumentPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a document with a type of its own: a table is made of it, here or by a client."""


Document: TypeAlias = (
    bool
    | int
    | float
    | str
    | DisplayTime
    | DocumentPart
    | Finding
    | Sequence["Document"]
    | Mapping[str, "Document"]
    | None
)
Section: TypeAlias = dict[str, Document]


def display_time(at: Wall | None) -> DisplayTime | None:
    """A time for display, if there is one."""
    return None if at is None else DisplayTime(at)


def display_boot(at: Boot | None, now: Now) -> DisplayTime | None:
    """A moment on CLOCK_BOOTTIME for display, if there is one."""
    return None if at is None else DisplayTime.from_boot(at, now)


def _to_datetime(at: Wall) -> datetime:
    try:
        return datetime.fromtimestamp(at, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, tz=timezone.utc)
