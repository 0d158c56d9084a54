"""The text of a notice for its user: one line, times in the host's time zone. Pure but for that."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from ds01d.model.notice import Notice, NoticeKind
from ds01d.model.primitives import Wall
from ds01d.text import make_printable

_MAX_TEXT: Final = 200  # of a name or a reason


def describe_notice(notice: Notice) -> str:
    """The message. The same notice has the same text, however often it is asked for."""
    name, slots = _shorten(notice.subject), ", ".join(sorted(notice.slots))
    reason = _shorten(notice.reason)
    match notice.kind:
        case NoticeKind.HOLD_ENDING:
            end = _format_minute(notice.until)
            return (
                f"container {name} is stopped and holds GPU {slots} until {end};"
                f" keep it: docker start {name}"
            )
        case NoticeKind.HOLD_ENDED:
            return f"container {name} is stopped and its hold on GPU {slots} is over ({reason})"
        case NoticeKind.SLOT_RELEASED:
            return (
                f"GPU {slots} of stopped container {name} was released: its hold is over;"
                " allocate one again before you start the container"
            )
        case NoticeKind.QUOTA_REACHED:
            return f"you hold {reason}: your quota is reached"
        case NoticeKind.QUOTA_REFUSED:
            return f"no GPU for you: {reason}; release one: docker rm CONTAINER"
        case NoticeKind.WAIT_OVER:
            return f"your turn has come: GPU {slots} is booked for {name}"
        case NoticeKind.GPU_FREE:
            return f"GPU {slots} is free and not reserved; to book it: {reason}"
        case NoticeKind.GPU_IDLE:
            since = _format_minute(notice.since)
            return (
                f"container {name} holds GPU {slots} and has not used it since {since};"
                f" if you are done with it: docker rm -f {name}"
            )
        case NoticeKind.GPU_LOST:
            return (
                f"container {name} can no longer open its GPU {slots};"
                f" to get it back: docker restart {name}"
            )


def _shorten(text: str) -> str:
    # Users write names: of any length, and with characters that a terminal obeys.
    text = make_printable(text)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _format_minute(at: Wall | None) -> str:
    """The nearest minute: a moment that is computed again differs by some milliseconds."""
    if at is None:
        return "an unknown time"
    try:
        minute = datetime.fromtimestamp(round(at / 60) * 60, tz=timezone.utc).astimezone()
    except (ValueError, OverflowError, OSError):
        # Of a damaged checkpoint: a text that raises would keep back the notices of all others.
        return "an unknown time"
    return f"{minute:%Y-%m-%d %H:%M}"
