"""Text for people: what may be shown of untrusted text, spans and moments of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from ds01d.model.primitives import Boot, Now, Wall

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def make_printable(text: str) -> str:
    """The text in one line, without anything that a terminal obeys: such signs are escaped.

    That is every control and format sign (text direction included), and what has no meaning.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in text
    )


def shorten_text(text: str, most: int) -> str:
    """The text as it may be shown, with an ellipsis where it is cut to `most` characters."""
    shown = make_printable(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


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


def format_count(count: int, word: str) -> str:
    """'1 drift', '2 drifts'."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


@dataclass(frozen=True, slots=True)
class DisplayTime:
    """A moment, shown to people in local time and beside now, to programs in UTC."""

    at: Wall

    @classmethod
    def from_boot(cls, boot: Boot, now: Now) -> DisplayTime:
        """A moment on CLOCK_BOOTTIME, as the wall clock will have it."""
        return cls(Wall(now.wall + (boot - now.boot)))

    def to_utc(self) -> str:
        """ISO, UTC."""
        return _to_datetime(self.at).isoformat(timespec="seconds")

    def to_local(self) -> str:
        """ISO, local, with the offset."""
        return _to_datetime(self.at).astimezone().isoformat(timespec="seconds")

    def relative_to(self, now: Wall) -> str:
        """Beside now: "in 1 m 52 s", "3 h ago"."""
        left = self.at - now
        return (
            f"in {format_span(left)}"
            if left >= 0.5
            else "now"
            if left > -0.5
            else f"{format_span(-left)} ago"
        )


def _to_datetime(at: Wall) -> datetime:
    try:
        return datetime.fromtimestamp(at, tz=timezone.utc)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, tz=timezone.utc)
