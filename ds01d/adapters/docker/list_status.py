"""What the age in a row of Docker's list proves: "Up 3 hours", "Exited (0) 2 days ago".

Pure. A row has neither StartedAt nor FinishedAt, so a container that was restarted while no events
were received has the same row as before, and a retention counted from its first stop would end too
early. But a container restarted within the last minute cannot be "Up 3 hours". That saves an
inspect for each container that has not changed since before the gap.
"""

from __future__ import annotations

import re

_STATUS = re.compile(
    r"(?:Up (?P<up>.+?)|(?:Exited|Restarting) \(-?\d+\) (?P<ended>.+?) ago)(?: \([^)]*\))?"
)
_MINUTE, _HOUR, _DAY, _WEEK, _MONTH, _YEAR = 60, 3600, 24, 24 * 7, 24 * 30, 24 * 365


def proves_unchanged(
    status: str,
    *,
    started: float | None,
    finished: float | None,
    asked: tuple[float, float],
    away_s: float,
) -> bool:
    """`status` shows that the container neither started nor ended in the last `away_s` seconds.

    Its age has to be worded as the cached times make it (at a moment within `asked`, when the list
    was made), and as no age within `away_s` could be.
    """
    match = _STATUS.fullmatch(status)
    if match is None:
        return False
    age_text = match["up"] or match["ended"]
    since = started if match["up"] else finished
    if since is None or age_text is None:
        return False
    ages = [now - since for now in asked]
    # A growing age never returns to an earlier wording. So where the wordings of the cached age
    # and of `away_s` differ, the true age is beyond `away_s` too.
    return any(
        age > away_s and format_age(age) == age_text and format_age(age) != format_age(away_s)
        for age in ages
    )


def format_age(age_s: float) -> str:
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
