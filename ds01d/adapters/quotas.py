"""How many slots a user may hold and which GPUs are kept for whom, out of the limits' YAML. Pure.

Whatever makes no sense never gives away what may be reserved, nor more slots than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date

from ds01d.adapters.local_time import parse_time
from ds01d.model.facts import UserName, Wall
from ds01d.model.records import Reservation

_MOST = "max_mig_instances"
_BUILT_IN = 1


def quota(layers: Iterable[Mapping[object, object]]) -> int | None:
    """How many slots, by the first layer that says so; None = any number."""
    for values in layers:
        if _MOST in values:
            most = values[_MOST]
            if most is None:
                return None
            return most if isinstance(most, int) and not isinstance(most, bool) else _BUILT_IN
    return _BUILT_IN


def reservations(
    overrides: Mapping[str, object], allocation: object
) -> tuple[tuple[Reservation, ...], tuple[str, ...]]:
    """Everybody's reservations, and what is said of them that makes no sense."""
    if isinstance(allocation, dict) and allocation.get("respect_reservations") is False:
        return (), ()
    found: list[Reservation] = []
    unclear: list[str] = []
    for user, values in overrides.items():
        if isinstance(values, dict) and values.get("reserved_gpus") is not None:
            found.append(_reservation(user, values, unclear))
    return tuple(found), tuple(unclear)


def _reservation(user: str, values: Mapping[object, object], unclear: list[str]) -> Reservation:
    """One reservation; a time that makes no sense ends nothing."""
    key = f"user_overrides.{user}"
    return Reservation(
        user=UserName(user),
        gpus=frozenset(_gpus(values["reserved_gpus"], f"{key}.reserved_gpus", unclear)),
        start=_time(values.get("reservation_start"), f"{key}.reservation_start", unclear),
        end=_time(values.get("reservation_end"), f"{key}.reservation_end", unclear),
    )


def _gpus(raw: object, key: str, unclear: list[str]) -> Iterator[str]:
    """Slot ids; YAML reads 1 as a number and 1.2 as a fraction."""
    for item in raw if isinstance(raw, list) else [raw]:
        if isinstance(item, str | int | float) and not isinstance(item, bool):
            yield str(item).strip().replace(":", ".")
        else:
            unclear.append(f'{key}: {item!r:.60} is no GPU; write a slot id, like "0" or "1.2"')


def _time(raw: object, key: str, unclear: list[str]) -> Wall | None:
    if raw is None:
        return None
    text = raw.isoformat() if isinstance(raw, date) else str(raw)
    at = parse_time(text) or parse_time(f"{text}T00:00")
    if at is None:
        unclear.append(f'{key}: {text!r:.60} is no time; write one like "2026-01-31T08:00:00"')
    return at
