"""What identifies a reservation: an allocation until its container exists. Pure.

An allocation has an ID, an owner and an end: the creation grace after it was made. A container with
the reserved name, or with the ID in its label and of the same owner, turns it into a booking.
One that was made for a process lasts as long as that runs, or another one that asked for the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ds01d.model.primitives import BookingId, ContainerName, Word

BOOKING_LABEL: Final = "ds01.booking"
"""By this label a container of any name claims the reservation with that ID."""

TOKEN_BYTES: Final = 6
MOST_PROCESSES: Final = 16
"""Of one reservation: who asks again and again must not make its record grow."""
_ID = re.compile(rf"r-[0-9a-f]{{{2 * TOKEN_BYTES}}}")
# The lab's docker wrapper, for a container whose name Docker is to make up.
_GENERATED = re.compile(r"ds01-auto-[0-9]+-[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservingProcess:
    """A process for which slots are reserved, by the kernel: a pid alone is used again.

    `started`: clock ticks since the boot `boot_id`. `command`: the kernel's short name for it,
    when it asked.
    """

    pid: int
    # Decision 233: these outlive a restart of ds01d, as no pidfd does.
    started: int
    boot_id: str
    command: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


class ProcessState(Word):
    RUNS = "runs"
    ENDED = "ended"
    UNKNOWN = "unknown"


def describe_processes(processes: Iterable[ReservingProcess]) -> str:
    return ", ".join(map(str, processes))


def make_booking_id(token: str) -> BookingId:
    """The ID with a random token of `TOKEN_BYTES` in hexadecimal digits."""
    return BookingId(f"r-{token}")


def parse_booking_id(text: object) -> BookingId | None:
    """The ID that a label, a record or a user writes; None for anything else."""
    return BookingId(text) if isinstance(text, str) and _ID.fullmatch(text) else None


def make_reserved_name(booking: BookingId, uid: int | None) -> ContainerName:
    """The name under which slots are booked before the container has one."""
    # With the uid it is its owner's also where its record is lost, as every DS01 name.
    return ContainerName(booking if uid is None else f"{booking}._.{uid}")


def parse_reserved_name(name: str) -> BookingId | None:
    """The ID in a name that was made up for a reservation; None for any other name."""
    return parse_booking_id(name.partition("._.")[0])


def is_made_up(name: str) -> bool:
    """Whether no container is to get this name: slots are only reserved under it."""
    return parse_reserved_name(name) is not None or _GENERATED.fullmatch(name) is not None
