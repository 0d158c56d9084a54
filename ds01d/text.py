"""Text for people: untrusted text on one line, spans of time, counts. Pure."""

from __future__ import annotations

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def make_printable(text: str) -> str:
    """The text in one line, without anything that a terminal obeys: such characters are escaped.

    That is every control and format sign (text direction included), and what has no meaning.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def format_span(seconds: float) -> str:
    """A time span in its two largest units: "1 m 52 s", "3 d 4 h"; never negative."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def describe_moment(left_s: float) -> str:
    """A moment so many seconds from now: "in 1 m 52 s", "now", "3 h ago"."""
    if left_s >= 0.5:
        return f"in {format_span(left_s)}"
    return "now" if left_s > -0.5 else f"{format_span(-left_s)} ago"


def format_count(count: int, word: str) -> str:
    """'1 drift', '2 drifts'."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
