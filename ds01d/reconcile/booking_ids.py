"""IDs of new bookings, and the names that are made of them: random, so nobody can guess one."""

from __future__ import annotations

import secrets

from ds01d.decide.booking_record import find_booking
from ds01d.decide.bookings import Records
from ds01d.model.primitives import BookingId, ContainerName
from ds01d.model.reservation import (
    TOKEN_BYTES,
    make_booking_id,
    make_reserved_name,
    parse_reserved_name,
)


def reserve_name(uid: int | None) -> ContainerName:
    """A new name to book under, of a user whose uid is known or not."""
    return make_reserved_name(_new_booking_id(), uid)


def choose_booking_id(container: ContainerName, records: Records) -> BookingId:
    """The ID in a reserved name, unless another booking has it; else a new one."""
    booking = parse_reserved_name(container)
    # Decision 185: or anybody could take one over by a name.
    if booking is None or find_booking(booking, records) not in (None, container):
        return _new_booking_id()
    return booking


def _new_booking_id() -> BookingId:
    return make_booking_id(secrets.token_hex(TOKEN_BYTES))
