"""The usage report as a document: sums by user, group, slot or day, or the bookings one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from ds01d.documents.values import DisplayTime, DocumentPart, display_time
from ds01d.errors import Refused
from ds01d.model.accounting import (
    AccountedBooking,
    AccountedTime,
    ReportQuery,
    ReportSubject,
    Shares,
)
from ds01d.model.primitives import UserName, Wall

if TYPE_CHECKING:  # clients that are given a report need no SQLite
    from ds01d.adapters.accounting_reader import AccountingReader

FindGroup = Callable[[UserName], str]
_HOUR_S: Final = 3600.0
_MOST_DAYS: Final = 400


class Hours(DocumentPart, frozen=True):
    """Hours within the period; the other four add up to `booked`."""

    booked: float
    used: float
    idle: float
    retained: float
    unknown: float


class UsageTimes(DocumentPart, frozen=True):
    """Hours of slots, and of GPUs: each slot by how much of a GPU it is.

    `unweighed_slot_hours` are in no GPU hours: nobody knows how much of a GPU these slots are.
    """

    bookings: int
    slot_hours: Hours
    gpu_hours: Hours
    unweighed_slot_hours: float


class UsageLine(DocumentPart, frozen=True):
    """The sum of a user, a group, a slot or a day (ISO, local).

    `subject` None: of bookings whose user is not known.
    """

    subject: str | None
    times: UsageTimes


class BookingLine(DocumentPart, frozen=True):
    """One booking. `end` None: it goes on; `reason`: what ended it."""

    id: int
    container: str
    user: str | None
    slot: str
    profile: str
    gpus: float | None
    begin: DisplayTime
    end: DisplayTime | None
    reason: str
    times: UsageTimes


class UsageReport(DocumentPart, frozen=True):
    """`lines` with their `total`, or `bookings`, newest first.

    `as_of`: the books were seen then, and bookings that go on are counted until then.
    `complete_since`: earlier bookings may be missing; `sampled_since`: what was done with earlier
    time is not known. `older_than`: where more bookings follow, the ID to go on with.
    """

    since: DisplayTime
    until: DisplayTime
    as_of: DisplayTime | None
    complete_since: DisplayTime | None
    sampled_since: DisplayTime | None
    by: str
    lines: tuple[UsageLine, ...]
    total: UsageTimes | None
    bookings: tuple[BookingLine, ...]
    older_than: int | None


def build_usage_report(
    reader: AccountingReader, query: ReportQuery, find_group: FindGroup
) -> UsageReport:
    """The report that a query asks for. `find_group`: the group of a user, by today's limits."""
    users = None if query.user is None else [query.user]
    if query.group is not None:
        candidates = reader.list_users() if users is None else users
        users = [user for user in candidates if find_group(user) == query.group]
    lines: tuple[UsageLine, ...] = ()
    total: UsageTimes | None = None
    bookings: tuple[BookingLine, ...] = ()
    if query.by is ReportSubject.BOOKING:
        bookings = tuple(map(_build_booking, reader.list_bookings(query, users)))
    elif query.by is ReportSubject.DAY:
        lines = tuple(_list_days(reader, query, users))
        # Not the sum of the days: a booking over midnight would count twice.
        total = _build_times(_sum_times(time for _, time in reader.sum_times(query, users)))
    else:
        sums: dict[str | None, AccountedTime] = {}
        for subject, time in reader.sum_times(query, users):
            key = subject
            # The accounting has users alone, so even the past counts by today's groups.
            if query.by is ReportSubject.GROUP and subject is not None:
                key = find_group(UserName(subject))
            sums[key] = time if key not in sums else _add_times(sums[key], time)
        lines = tuple(
            UsageLine(subject=key, times=_build_times(sums[key]))
            # Unknown users come last: None cannot be compared with a name.
            for key in sorted(sums, key=lambda key: (key is None, key))
        )
        total = _build_times(_sum_times(sums.values()))
    progress = reader.progress
    observed = progress.observed
    return UsageReport(
        since=DisplayTime(query.since),
        until=DisplayTime(query.until),
        as_of=display_time(None if observed is None else observed.wall),
        complete_since=display_time(progress.complete_since),
        sampled_since=display_time(progress.sampled_since),
        by=query.by.value,
        lines=lines,
        total=total,
        bookings=bookings,
        older_than=bookings[-1].id
        if query.most is not None and len(bookings) == query.most
        else None,
    )


def find_midnight(moment: Wall, days: int = 0) -> datetime:
    """Local midnight before a moment, or so many days later, by the calendar."""
    local = datetime.fromtimestamp(moment).astimezone()
    # Without its offset, which may be another on that day: clocks may be set in between.
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return (midnight + timedelta(days=days)).astimezone()


def _list_days(
    reader: AccountingReader, query: ReportQuery, users: Sequence[UserName] | None
) -> Iterator[UsageLine]:
    """A line for each day, from local midnight to local midnight. Raises `Refused`."""
    day = find_midnight(query.since)
    if query.until - query.since > _MOST_DAYS * 86400.0:
        raise Refused(f"a report by day may be about {_MOST_DAYS} days at most")
    while (begin := day.timestamp()) < query.until:
        # By the calendar: a day on which clocks are set has 23 or 25 hours.
        day = (day.replace(tzinfo=None) + timedelta(days=1)).astimezone()
        since, until = max(query.since, begin), min(query.until, day.timestamp())
        part = replace(query, since=Wall(since), until=Wall(until))
        times = _sum_times(time for _, time in reader.sum_times(part, users))
        name = datetime.fromtimestamp(begin).astimezone().date().isoformat()
        yield UsageLine(subject=name, times=_build_times(times))


def _build_booking(booking: AccountedBooking) -> BookingLine:
    return BookingLine(
        id=booking.id,
        container=booking.container,
        user=booking.user,
        slot=booking.slot,
        profile=booking.weight.profile,
        gpus=None if booking.weight.gpus is None else round(booking.weight.gpus, 4),
        begin=DisplayTime(booking.begin),
        end=display_time(booking.end),
        reason=booking.reason,
        times=_build_times(booking.time),
    )


def _sum_times(times: Iterable[AccountedTime]) -> AccountedTime:
    total = AccountedTime(bookings=0, slots=Shares(), gpus=Shares())
    for time in times:
        total = _add_times(total, time)
    return total


def _add_times(first: AccountedTime, second: AccountedTime) -> AccountedTime:
    return AccountedTime(
        bookings=first.bookings + second.bookings,
        slots=_add_shares(first.slots, second.slots),
        gpus=_add_shares(first.gpus, second.gpus),
        unweighed=first.unweighed + second.unweighed,
    )


def _add_shares(first: Shares, second: Shares) -> Shares:
    return Shares(
        booked=first.booked + second.booked,
        used=first.used + second.used,
        idle=first.idle + second.idle,
        retained=first.retained + second.retained,
    )


def _build_times(time: AccountedTime) -> UsageTimes:
    return UsageTimes(
        bookings=time.bookings,
        slot_hours=_build_hours(time.slots),
        gpu_hours=_build_hours(time.gpus),
        unweighed_slot_hours=_to_hours(time.unweighed),
    )


def _build_hours(shares: Shares) -> Hours:
    # Decision 246: time without a reading is unknown, never idle. Floats may end below 0.
    unknown = shares.booked - shares.used - shares.idle - shares.retained
    return Hours(
        booked=_to_hours(shares.booked),
        used=_to_hours(shares.used),
        idle=_to_hours(shares.idle),
        retained=_to_hours(shares.retained),
        unknown=_to_hours(max(0.0, unknown)),
    )


def _to_hours(seconds: float) -> float:
    return round(seconds / _HOUR_S, 4)  # a third of a second
