"""What somebody wrote about a container into a file that everybody may write to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedEvent:
    """A line of events.jsonl, as it claims to be; nothing of it is checked."""

    # Decision 236: everybody may write there, so nothing is decided by it.
    at: str
    type: str
    user: str = ""
    source: str = ""
    details: str = ""
