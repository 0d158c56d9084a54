"""What the age in a row of Docker's list proves: "Up 3 hours", "Exited (0) 2 days ago".

Pure. A row tells neither StartedAt nor FinishedAt, so a container that was restarted while nobody
listened has the same row as before, and a hold counted from its first end would end too early. But
whoever was restarted within the last minute cannot be "Up 3 hours". That spares an inspect for
each container that has been what it is for longer than we were away, without trusting it.
"""

from __future__ import annotations

import re

_STATUS = re.compile(
    r"(?:Up (?P<up>.+?)|(?:Exited|Restarting) \(-?\d+\) (?P<ended>.+?) ago)(?: \([^)]*\))?"
)
_MINUTE, _HOUR, _DAY, _WEEK, _MONTH, _YEAR = 60, 3600, 24, 24 * 7, 24 * 30, 24 * 365


def is_confirmed(
    status: str,
    *,
    started: float | None,
    finished: float | None,
    asked: tuple[float, float],
    away_s: float,
) -> bool:
    """Whether `status` shows that the container neither started nor ended in the last `away_s`.

    It must read as the times known of it make it read (at a moment within `asked`, when the list
    was made), and as no age within `away_s` could.
    """
    match = _STATUS.fullmatch(status)
    if match is None:
        return False
    told = match["up"] or match["ended"]
    since = started if match["up"] else finished
    if since is None or told is None:
        return False
    ages = [now - since for now in asked]
    # Ages grow through their wordings without ever coming back to one, so that a known age beyond
    # `away_s`, with another wording, proves that the true age is beyond it too.
    return any(
        age > away_s and wording(age) == told and wording(age) != wording(away_s) for age in ages
    )


def wording(age_s: float) -> str:
    """An age as Docker words it in a row's Status."""
    seconds, minutes, hours = int(age_s), int(age_s / _MINUTE), int(age_s / _HOUR + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 2 * _DAY:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 2 * _WEEK:
        return f"{hours // _DAY} days"
    if hours < 2 * _MONTH:
        return f"{hours // _WEEK} weeks"
    if hours < 2 * _YEAR:
        return f"{hours // _MONTH} months"
    return f"{int(age_s / _HOUR) // _YEAR} years"
