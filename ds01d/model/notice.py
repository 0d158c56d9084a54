"""Notices to users: what one has to know of their own GPUs. Pure values; nobody acts by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ds01d.model.primitives import SlotId, UserName, Wall, Word


class NoticeKind(Word):
    """What a notice is about; the value is its type in `alerts/USER.json`."""

    HOLD_ENDING = "gpu_hold_ending"
    HOLD_ENDED = "gpu_hold_ended"
    SLOT_RELEASED = "gpu_released"
    QUOTA_REACHED = "gpu_quota_reached"
    QUOTA_REFUSED = "gpu_quota_refused"

    @property
    def is_lasting(self) -> bool:
        """A state of things that each pass shows, not something that happens once."""
        return self in (NoticeKind.HOLD_ENDING, NoticeKind.HOLD_ENDED)


class Alert(NamedTuple):
    """A notice as its target has it."""

    type: str
    message: str


class NoticeKey(NamedTuple):
    """What makes two notices the same one."""

    kind: NoticeKind
    user: UserName
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notice to one user.

    `subject`: the container, "" where it is about no one of them. `until`: when a hold ends.
    `reason`: the rest, as text: numbers of a quota, or what keeps an ended hold from its release.
    """

    kind: NoticeKind
    user: UserName
    subject: str = ""
    slots: frozenset[SlotId] = frozenset()
    until: Wall | None = None
    reason: str = ""

    @property
    def key(self) -> NoticeKey:
        return NoticeKey(self.kind, self.user, self.subject)
