"""What is shown to people: untrusted text, cut, and moments of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from ds01d.model.primitives import Boot, Now, Wall
from ds01d.text import format_span, make_printable


def shorten_text(text: str, most: int) -> str:
    """The text as it may be shown, with an ellipsis where it is cut to `most` characters."""
    # Cut first: escaping a megabyte to show a line of it would take a while.
    shown = make_printable(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


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
