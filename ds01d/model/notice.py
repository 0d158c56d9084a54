"""Notices to users: what one has to know of their own GPUs. Pure values; nobody acts by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ds01d.model.primitives import SlotId, UserName, Wall, Word


class NoticeKind(Word):
    """What a notice is about; the value is its type in `alerts/USER.json`."""

    HOLD_ENDING = "gpu_hold_ending"
    HOLD_ENDED = "gpu_hold_ended"
    SLOT_RELEASED = "gpu_released"
    QUOTA_REACHED = "gpu_quota_reached"
    QUOTA_REFUSED = "gpu_quota_refused"
    WAIT_OVER = "gpu_wait_over"
    GPU_FREE = "gpu_free"
    GPU_IDLE = "gpu_idle"
    GPU_LOST = "gpu_lost"

    @property
    def is_lasting(self) -> bool:
        """A state of things that each sweep shows, not something that happens once."""
        return self.is_of_hold or self.is_of_finding

    @property
    def is_of_hold(self) -> bool:
        """It is over for certain when a sweep does not show it."""
        return self in (NoticeKind.HOLD_ENDING, NoticeKind.HOLD_ENDED)

    @property
    def is_of_finding(self) -> bool:
        """It rests on readings: one that fails hides it for a while."""
        return self in (NoticeKind.GPU_IDLE, NoticeKind.GPU_LOST)


class Alert(NamedTuple):
    """A notice as the lab's folder has it."""

    type: str
    message: str


class NoticeKey(NamedTuple):
    """What makes two notices the same one. `stage`: which of several warnings, in seconds."""

    kind: NoticeKind
    user: UserName
    subject: str
    stage: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notice to one user.

    `subject`: the container, "" where it is about no one of them. `until`: when a hold ends.
    `stage`: which warning of it, in seconds before the end. `since`: of what lasts. `reason`: the
    rest, as text: numbers of a quota, or what keeps an ended hold from its release.
    """

    kind: NoticeKind
    user: UserName
    subject: str = ""
    slots: frozenset[SlotId] = frozenset()
    until: Wall | None = None
    stage: float = 0.0
    since: Wall | None = None
    reason: str = ""

    @property
    def key(self) -> NoticeKey:
        return NoticeKey(self.kind, self.user, self.subject, self.stage)


class WrittenNotice(NamedTuple):
    """A notice and its text, one line."""

    notice: Notice
    message: str


class GivenNotice(NamedTuple):
    """What a target has from before a restart. `at`: since when."""

    key: NoticeKey
    at: Wall
    until: Wall | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledNotice:
    """A notice on its way from ds01d to ds01d-notify.

    `id`: unique, so that a receiver can drop a second copy. `kind`: a word that this version may
    not know yet. Times are seconds since the epoch.
    """

    id: str
    at: float
    kind: str
    user: str
    message: str
    container: str = ""
    slots: tuple[str, ...] = ()
    until: float | None = None
    stage: float = 0.0

    def is_outdated(self, now: float, lasts_s: float) -> bool:
        """Whether it is about a moment that has passed, or older than `lasts_s`."""
        is_past = self.until is not None and self.until <= now
        return is_past or now - self.at > lasts_s


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotWish:
    """What a user asks for: `slot` alone, or `count` slots, of that `profile` if one is named."""

    user: UserName
    slot: SlotId | None = None
    count: int = 1
    profile: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeRequest:
    """A user wants a notice when there is room for this; nothing is reserved by it.

    As `SlotWish`. `since`, `until`: when it was asked for, and when it ends by itself, in seconds
    since the epoch.
    """

    user: UserName
    slot: SlotId | None = None
    count: int = 1
    profile: str | None = None
    since: Wall
    until: Wall

    @property
    def wish(self) -> SlotWish:
        return SlotWish(user=self.user, slot=self.slot, count=self.count, profile=self.profile)


class DeliveryTarget(Word):
    """What ds01d-notify sends to; the value is the name of its record."""

    TERMINALS = "terminals"
    GREETINGS = "greetings"
    COMMAND = "command"
    MAIL = "mail"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """What became of the notices at one target.

    `finished`: the IDs that are not to be tried again; `attempts`: how often each of the others was
    begun. Counts are since the record was begun. `failed_at`: of `failure`, seconds since the
    epoch; `is_failing`: the last attempt failed.
    """

    finished: tuple[str, ...] = ()
    attempts: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    failed: int = 0
    dropped: int = 0
    failure: str = ""
    failed_at: float = 0.0
    is_failing: bool = False
