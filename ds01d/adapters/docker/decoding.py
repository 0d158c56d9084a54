"""Docker's JSON and times as values. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TypeVar

import msgspec

from ds01d.errors import Malformed
from ds01d.model.primitives import Wall

T = TypeVar("T")


def decode_answer(body: bytes, form: type[T], subject: str) -> T:
    """JSON of Docker's as `form`. Raises `Malformed`, with `subject` as what it is."""
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"invalid answer of Docker: {subject}: {error}") from error


def parse_time(text: str | None) -> Wall | None:
    """A time as Docker writes it; None for none (Docker writes year 1) or an invalid one."""
    try:
        moment = msgspec.convert(text, datetime)
        if moment.tzinfo is None or moment.year <= 1:
            return None
        return Wall(moment.astimezone(timezone.utc).timestamp())
    except (msgspec.ValidationError, OverflowError, ValueError):
        return None
