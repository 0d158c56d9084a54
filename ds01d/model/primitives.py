"""The words that facts are made of: names, times, and the failure of a source as a value.

Pure values. Nothing here reads a file, asks a clock or decides; a fact is what an adapter
understood, in one form however many forms the source has for it.

Times: `Wall` is seconds since the epoch (UTC), `Boot` is seconds on CLOCK_BOOTTIME.
They never mix: waiting is counted on `Boot` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType

ContainerName = NewType("ContainerName", str)
ContainerId = NewType("ContainerId", str)
SlotId = NewType("SlotId", str)
DeviceUuid = NewType("DeviceUuid", str)
UserName = NewType("UserName", str)
Wall = NewType("Wall", float)
Boot = NewType("Boot", float)
Digest = NewType("Digest", str)
BookingId = NewType("BookingId", str)


class Word(str, Enum):
    """A closed set of words that print as themselves (Python 3.10 has no StrEnum)."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]
    # As its text, to which it is equal. Enum's own is that of another text, and a call of Python
    # for each look-up in a set: a sweep makes thousands.
    __hash__ = str.__hash__


class Source(Word):
    """Where a fact comes from."""

    DOCKER = "docker"
    NVML = "nvml"
    STATE = "state"
    METADATA = "metadata"
    OPERATIONS = "operations"
    LIMITS = "limits"
    FLEET = "fleet"


LOCAL_SOURCES = tuple(source for source in Source if source is not Source.FLEET)
"""What every host has; the store of a fleet is asked only where one is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A source that did not answer. A value of its own, so nothing takes it for an empty answer.

    `missing`: there is no such file, which is not the same as one that cannot be read.
    """

    source: Source
    reason: str
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One instant on both clocks. Two `boot` values are comparable only with one `boot_id`."""

    wall: Wall
    boot: Boot
    boot_id: str

    def to_wall(self, moment: Boot | None) -> Wall | None:
        """Where a moment of this boot lies on the wall clock, as it is set now."""
        return None if moment is None else Wall(self.wall + moment - self.boot)
