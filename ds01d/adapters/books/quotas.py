"""How many slots a user may hold and which GPUs are kept for whom, out of the limits' YAML. Pure.

Whatever is invalid never gives away what may be reserved, nor more slots than one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ds01d.adapters.books.strict_yaml import WrittenDate, describe_value, text_of
from ds01d.adapters.books.timestamps import parse_time
from ds01d.model.limits import Reservation
from ds01d.model.primitives import UserName, Wall

# The original looks for them in this order, in the user's limits with the defaults under them.
QUOTA_KEYS: Final = ("max_gpus_per_user", "max_mig_instances")
RESERVATION_KEYS: Final = ("reserved_gpus", "reservation_start", "reservation_end")
_BUILT_IN = 1
_ANY_NUMBER = "unlimited"


def find_quota(layers: Sequence[Mapping[object, object]]) -> int | None:
    """How many slots; None = any number."""
    place = find_quota_key(layers)
    return _BUILT_IN if place is None else _parse_quota(layers[place[0]][place[1]])


def find_quota_key(layers: Sequence[Mapping[object, object]]) -> tuple[int, str] | None:
    """The first key that is there, and the number of its first layer."""
    for key in QUOTA_KEYS:
        for number, values in enumerate(layers):
            if key in values:
                return number, key
    return None


def _parse_quota(value: object) -> int | None:
    # The former allocator reads null and "unlimited" alike.
    if value is None or (isinstance(value, str) and value.strip().lower() == _ANY_NUMBER):
        return None
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else _BUILT_IN


def parse_reservations(
    overrides: Mapping[str, object], allocation: object
) -> tuple[tuple[Reservation, ...], tuple[str, ...]]:
    """The reservations of all users, and the invalid ones as messages."""
    # The switch is the former allocator's; without it reservations count.
    if isinstance(allocation, dict) and allocation.get("respect_reservations") is False:
        return (), ()
    parsed: list[Reservation] = []
    unclear: list[str] = []
    for user, values in overrides.items():
        if isinstance(values, dict) and values.get("reserved_gpus") is not None:
            parsed.append(_parse_reservation(user, values, unclear))
    return tuple(parsed), tuple(unclear)


def _parse_reservation(
    user: str, values: Mapping[object, object], unclear: list[str]
) -> Reservation:
    """One reservation; an invalid time ends nothing."""
    key = f"user_overrides.{user}"
    return Reservation(
        user=UserName(user),
        gpus=frozenset(_parse_gpus(values["reserved_gpus"], f"{key}.reserved_gpus", unclear)),
        start=_parse_limit_time(
            values.get("reservation_start"), f"{key}.reservation_start", unclear
        ),
        end=_parse_limit_time(values.get("reservation_end"), f"{key}.reservation_end", unclear),
    )


def _parse_gpus(raw: object, key: str, unclear: list[str]) -> Iterator[str]:
    """Slot ids as they are written; YAML reads 1 as a number, 1.10 as 1.1 and 1:0 as 60."""
    for item in raw if isinstance(raw, list) else [raw]:
        text = text_of(item)
        if text is not None:
            yield str(text).strip().replace(":", ".")
        else:
            unclear.append(
                f'{key}: invalid GPU {describe_value(item)}; write a slot ID, like "0" or "1.2"'
            )


def _parse_limit_time(raw: object, key: str, unclear: list[str]) -> Wall | None:
    if raw is None:
        return None
    text = raw.value.isoformat() if isinstance(raw, WrittenDate) else str(raw)
    # A date alone means its first minute, as on the command line.
    at = parse_time(text) or parse_time(f"{text}T00:00")
    if at is None:
        unclear.append(f'{key}: invalid time {text!r:.60}; write one like "2026-01-31T08:00:00"')
    return at
