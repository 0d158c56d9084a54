"""What identifies a reservation: an allocation until its container exists. Pure.

An allocation has an ID, an owner and an end: the creation grace after it was made. A container with
the reserved name, or with the ID in its label and of the same owner, turns it into a booking.
"""

from __future__ import annotations

import re
from typing import Final

from ds01d.model.primitives import BookingId, ContainerName

BOOKING_LABEL: Final = "ds01.booking"
"""By this label a container of any name claims the reservation with that ID."""

TOKEN_BYTES: Final = 6
_ID = re.compile(rf"r-[0-9a-f]{{{2 * TOKEN_BYTES}}}")


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
