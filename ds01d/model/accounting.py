"""The accounting: who had which slot, from when to when, and what became of the time. Pure values.

Times are seconds since the epoch, by the wall clock as it is set now: where it was set meanwhile,
the times of the same boot are moved along, so that no duration is changed by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ds01d.model.history import HistoryPlace
from ds01d.model.primitives import ContainerName, Now, SlotId, UserName, Wall, Word

Pair = tuple[ContainerName, SlotId]


class SlotUse(Word):
    """What the holder of a slot does with it. What is not known is none of them."""

    # Decision 246: no word for the unknown, which sums would take for idleness.
    USED = "used"
    IDLE = "idle"
    RETAINED = "retained"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotWeight:
    """How much of a GPU a slot is: 1 for a whole one. None: it is not known."""

    profile: str
    gpus: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingBegun:
    """A container got a slot. `id`: of the booking, never used again."""

    id: int
    container: ContainerName
    user: UserName | None
    slot: SlotId
    # Decision 247: as of the begin; by a later layout past months would be weighed wrongly.
    weight: SlotWeight
    at: Now


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingChanged:
    """The booking went to another name, or turned out to be another user's."""

    id: int
    container: ContainerName
    user: UserName | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingEnded:
    """`reason`: the kind of the change that ended it, in the words of the history."""

    id: int
    at: Now
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeDivided:
    """So many seconds of a booking in one hour (since the epoch), by what was done with them."""

    id: int
    hour: int
    seconds: Mapping[SlotUse, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSet:
    """The wall clock of a boot: `offset` is its time at the begin of CLOCK_BOOTTIME.

    `step_s`: by how much the times of this boot so far were wrong.
    """

    boot_id: str
    # Decision 247: bookings from before NTP's first answer end up at their real time.
    offset: float
    step_s: float


AccountingChange = BookingBegun | BookingChanged | BookingEnded | TimeDivided | ClockSet


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingProgress:
    """How far the accounting has come.

    `place`: up to where every change of the history is in it; `applied`: later entries that are,
    too. `observed`: the last moment at which the books were seen. `complete_since`: from when on
    no booking is missing; `sampled_since`: from when on it is known what was done with the time.
    """

    # Decision 245: what was not stored is read again from here.
    place: HistoryPlace | None = None
    applied: frozenset[str] = frozenset()
    observed: Now | None = None
    complete_since: Wall | None = None
    sampled_since: Wall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAccount:
    """What is read of an accounting at a start: the bookings that have not ended, and the rest.

    `offsets`: of the wall clock, by boot. `next_id`: for the next booking.
    """

    bookings: Sequence[BookingBegun] = ()
    offsets: Mapping[str, float] = field(default_factory=dict)
    progress: AccountingProgress = field(default_factory=AccountingProgress)
    next_id: int = 1


class ReportSubject(Word):
    """What a line of a report is about."""

    USER = "user"
    GROUP = "group"
    SLOT = "slot"
    DAY = "day"
    BOOKING = "booking"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQuery:
    """The period of a report and what is in it. `user`, `group`, `slot`: None for all.

    `before`, `most`: of bookings, so many whose ID is lower; None: the newest, and all of them.
    """

    since: Wall
    until: Wall
    by: ReportSubject = ReportSubject.USER
    user: UserName | None = None
    group: str | None = None
    slot: SlotId | None = None
    before: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Seconds within a period. What is not used, idle or retained is not known."""

    booked: float = 0.0
    used: float = 0.0
    idle: float = 0.0
    retained: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountedTime:
    """The time of some bookings: as they are counted, and weighed by how much of a GPU they had.

    `unweighed`: the seconds of slots of which nobody knows how much of a GPU they are.
    """

    bookings: int
    slots: Shares
    gpus: Shares
    unweighed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountedBooking:
    """One booking, with its time in a period. `end` None: it goes on."""

    id: int
    container: ContainerName
    user: UserName | None
    slot: SlotId
    weight: SlotWeight
    begin: Wall
    end: Wall | None
    reason: str
    time: AccountedTime
