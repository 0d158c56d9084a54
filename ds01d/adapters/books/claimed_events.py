"""What the lines of events.jsonl say of a container: claims of its many writers, for people.

Decision 236: every user of a group may write to the file, in anybody's name, so nothing is decided
by it, and only commands read it, with the rights of their caller. Bounded, as it is hostile.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ds01d.adapters.files.safe_read import NotRead, ReadFailure, open_file
from ds01d.model.claimed_event import ClaimedEvent

_MAX_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 4096
_MAX_TEXT: Final = 200


class _Line(msgspec.Struct, frozen=True):
    timestamp: str
    event_type: str
    user: str | None = None
    source: str | None = None
    details: dict[str, Any] = {}


def read_claims(path: Path, name: str, most: int) -> list[ClaimedEvent] | str:
    """The newest lines about a container, oldest first; why not, if the file cannot be read.

    Of the last 1 MiB, without the lines of ds01d, which are in the operations log.
    """
    descriptor = open_file(path)
    if isinstance(descriptor, NotRead):
        return [] if descriptor.obstacle is ReadFailure.MISSING else descriptor.reason
    try:
        size = os.fstat(descriptor).st_size
        # It may begin within a line; the rest of one is no JSON object, and is passed over.
        data = os.pread(descriptor, _MAX_BYTES, max(0, size - _MAX_BYTES))
    except OSError as error:
        return f"{path}: {error.strerror}"
    finally:
        os.close(descriptor)
    claims: deque[ClaimedEvent] = deque(maxlen=most)
    for line in data.split(b"\n"):
        claim = _parse_claim(line, name)
        if claim is not None:
            claims.append(claim)
    return list(claims)


def _parse_claim(line: bytes, name: str) -> ClaimedEvent | None:
    """A line if it is about `name`: one of its details is that name; None for every other line."""
    # Nearly all lines are about others, and to search the bytes costs far less than to parse.
    if len(line) > _MAX_LINE_BYTES or name.encode(errors="replace") not in line:
        return None
    try:
        event = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if event.source == "ds01d" or name not in event.details.values():
        return None
    return ClaimedEvent(
        at=event.timestamp[:_MAX_TEXT],
        type=event.event_type[:_MAX_TEXT],
        user=(event.user or "")[:_MAX_TEXT],
        source=(event.source or "")[:_MAX_TEXT],
        details=_describe_details(event.details, name),
    )


def _describe_details(details: Mapping[str, Any], name: str) -> str:
    rest = (f"{key}={value}" for key, value in details.items() if value != name)
    return " ".join(rest)[:_MAX_TEXT]
