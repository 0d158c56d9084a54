"""Reads the accounting for a report, from any process: it never keeps its writer waiting."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.accounting_database import NAME, check_format, connect, read_progress
from ds01d.errors import AccountingBroken
from ds01d.model.accounting import (
    AccountedBooking,
    AccountedTime,
    AccountingProgress,
    ReportQuery,
    ReportSubject,
    Shares,
    SlotWeight,
)
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall

_WAIT_S: Final = 5.0  # while its journal is being played back
_WITHIN: Final = "begun >= :since AND ended <= :until"
_CROSSES: Final = "(begun < :since OR ended > :until OR ended IS NULL)"
_TOUCHES: Final = "begun < :until AND (ended > :since OR ended IS NULL)"
# What a booking that goes on, or over an edge of the period, did within it, by its hours. Within an
# hour the parts are taken to be spread evenly.
_PARTS: Final = """
SELECT SUM(used * part), SUM(idle * part), SUM(retained * part) FROM (
    SELECT used, idle, retained,
        CASE WHEN last <= first THEN 1
        ELSE MAX(0, MIN(last, :until) - MAX(first, :since)) / (last - first) END AS part
    FROM (
        SELECT used, idle, retained, MAX(hour * 3600, :begun) AS first,
            MIN(hour * 3600 + 3600, :ended) AS last
        FROM hours WHERE booking = :id AND hour * 3600 + 3600 > :since AND hour * 3600 < :until
    )
)
"""
_COLUMNS: Final = "id, container, user, slot, profile, gpus, begun, ended, reason"


class AccountingReader:
    """One reading of the accounting: all its answers are of the same moment."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.progress: AccountingProgress = read_progress(database)[0]

    def list_users(self) -> Sequence[UserName]:
        """The users of all bookings."""
        rows = self._database.execute("SELECT DISTINCT user FROM bookings WHERE user IS NOT NULL")
        return [UserName(user) for (user,) in rows]

    def sum_times(
        self, query: ReportQuery, users: Sequence[UserName] | None
    ) -> Iterator[tuple[str | None, AccountedTime]]:
        """The time of each user or slot, in parts that are to be added. `users`: of these alone."""
        column = "slot" if query.by is ReportSubject.SLOT else "user"
        where, parameters = _select(query, users)
        # Those within the period are nearly all, and SQLite adds them up in half a second: not by
        # the index of users (hence the +), which would read each of them from another place.
        statement = (
            f"SELECT {column}, gpus, COUNT(*), SUM(MAX(0, ended - begun)), SUM(used), SUM(idle),"  # noqa: S608
            f" SUM(retained) FROM bookings WHERE {_WITHIN}{where} GROUP BY +{column}, gpus"
        )
        for subject, gpus, count, *seconds in self._database.execute(statement, parameters):
            yield subject, _weigh(count, seconds, gpus)
        for booking in self._read_bookings(query, f"{where} AND {_CROSSES}", parameters):
            yield (
                booking.slot if query.by is ReportSubject.SLOT else booking.user,
                booking.time,
            )

    def list_bookings(
        self, query: ReportQuery, users: Sequence[UserName] | None
    ) -> Iterator[AccountedBooking]:
        """The bookings, newest first."""
        where, parameters = _select(query, users)
        if query.before is not None:
            where += " AND id < :before"
            parameters["before"] = query.before
        parameters["most"] = -1 if query.most is None else query.most
        return self._read_bookings(query, f"{where} ORDER BY id DESC LIMIT :most", parameters)

    def _read_bookings(
        self, query: ReportQuery, rest: str, parameters: dict[str, object]
    ) -> Iterator[AccountedBooking]:
        observed = self.progress.observed
        # Nobody has seen it since.
        now = query.until if observed is None else observed.wall
        statement = f"SELECT {_COLUMNS}, used, idle, retained FROM bookings WHERE {_TOUCHES}{rest}"  # noqa: S608
        for row in self._database.execute(statement, parameters):
            id_, container, user, slot, profile, gpus, begun, ended, reason, *parts = row
            end = now if ended is None else ended
            booked = max(0.0, min(end, query.until) - max(begun, query.since))
            if ended is None or begun < query.since or end > query.until:
                within = {"id": id_, "begun": begun, "ended": end}
                parts = self._database.execute(_PARTS, parameters | within).fetchone()
            yield AccountedBooking(
                id=id_,
                container=ContainerName(container),
                user=None if user is None else UserName(user),
                slot=SlotId(slot),
                weight=SlotWeight(profile=profile, gpus=gpus),
                begin=Wall(begun),
                end=None if ended is None else Wall(ended),
                reason=reason or "",
                time=_weigh(1, [booked, *(part or 0.0 for part in parts)], gpus),
            )


def _select(query: ReportQuery, users: Sequence[UserName] | None) -> tuple[str, dict[str, object]]:
    parameters: dict[str, object] = {"since": query.since, "until": query.until}
    where = ""
    if query.slot is not None:
        where += " AND slot = :slot"
        parameters["slot"] = query.slot
    if users is not None:
        names = [f"user{number}" for number, _ in enumerate(users)]
        where += f" AND user IN ({', '.join(f':{name}' for name in names)})"
        parameters |= dict(zip(names, users, strict=True))
    return where, parameters


def _weigh(count: int, seconds: Sequence[float], gpus: float | None) -> AccountedTime:
    booked, used, idle, retained = seconds
    weight = gpus or 0.0
    return AccountedTime(
        bookings=count,
        slots=Shares(booked=booked, used=used, idle=idle, retained=retained),
        gpus=Shares(
            booked=booked * weight,
            used=used * weight,
            idle=idle * weight,
            retained=retained * weight,
        ),
        unweighed=booked if gpus is None else 0.0,
    )


@contextmanager
def open_reader(folder: Path) -> Iterator[AccountingReader | None]:
    """A reading of the accounting in `folder`; None where there is none yet.

    Raises `AccountingBroken`.
    """
    path = folder / NAME
    if not path.exists():
        yield None
        return
    try:
        with closing(connect(path, _WAIT_S)) as database:
            database.execute("PRAGMA query_only = ON")
            # One transaction: what is saved meanwhile is in none of the answers.
            database.execute("BEGIN")
            check_format(database)
            yield AccountingReader(database)
    except (sqlite3.Error, msgspec.ValidationError, ValueError, TypeError) as error:
        raise AccountingBroken(f"cannot read the accounting in {path}: {error}") from error
