"""Times as the books have them: naive, in the zone of this host.

Turns text into seconds since the epoch and back. Knows nothing of what a time is for.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from ds01d.model.primitives import Wall

# datetime.fromisoformat of Python 3.10 knows neither "Z" nor fractions of other than 3 or 6 digits.
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"\s*(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))?"
)


_LATEST = datetime(9999, 12, 30, tzinfo=timezone.utc).timestamp()  # can be written in any zone


def parse_time(text: str) -> Wall | None:
    """Read an ISO time, naive (then local) or with an offset; None where it is no valid time.

    A local time that comes twice, when summer time ends, is taken for the later one: what waits
    from there on never ends early. Times before 1970 stand for "none" (Docker's year 1), the last
    day of year 9999 for the one before it.
    """
    match = _ISO.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zulu, sign, hours, minutes = match.groups()
    micro = int(((fraction or "") + "000000")[:6])
    try:
        naive = datetime(  # noqa: DTZ001 - the zone follows
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0), micro
        )
        if zulu:
            seconds = naive.replace(tzinfo=timezone.utc).timestamp()
        elif sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            zone = timezone(-offset if sign == "-" else offset)
            seconds = naive.replace(tzinfo=zone).timestamp()
        else:
            seconds = max(naive.replace(fold=fold).timestamp() for fold in (0, 1))
    except (ValueError, OverflowError, OSError):
        return None
    return Wall(min(seconds, _LATEST)) if seconds > 0 else None


def format_iso(at: Wall) -> str:
    """Write a time as the allocator does: naive, local, with microseconds."""
    return _to_local(at).strftime("%Y-%m-%dT%H:%M:%S.%f")


def format_log_time(at: Wall) -> str:
    """Write a time as the operations log has it."""
    return _to_local(at).strftime("%Y-%m-%d %H:%M:%S")


def _to_local(at: Wall) -> datetime:
    return datetime.fromtimestamp(at, tz=timezone.utc).astimezone()
