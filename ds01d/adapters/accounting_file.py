"""The accounting in SQLite: a file of its own in `state_dir`, which the daemon alone writes.

SQLite's journal (WAL) keeps it whole: killed at any moment, it is as before a save or as after it.
What a crash of the host may cost is saved again, since the place in the history is part of a save.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.accounting_database import (
    NAME,
    BookingNumber,
    Moment,
    check_journal,
    open_database,
    read_progress,
    transaction,
    write_progress,
)
from ds01d.errors import AccountingBroken, WriteFailed
from ds01d.model.accounting import (
    AccountingChange,
    AccountingProgress,
    BookingBegun,
    BookingChanged,
    BookingEnded,
    ClockSet,
    OpenAccount,
    SlotUse,
    SlotWeight,
    TimeDivided,
)
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, UserName, Wall

_DROPPED_AT_ONCE: Final = 500
_DAY_S: Final = 86400.0
_BootRow = tuple[int, str, Moment]
_OpenRow = tuple[BookingNumber, str, str | None, str, str, float | None, Moment, int | None]


class AccountingFile:
    """For one thread. Opened at the first call, and again after `close`.

    A call raises `WriteFailed` where the file is locked or the disk full, and `AccountingBroken`
    where it is damaged; then nothing of the call is stored.
    """

    def __init__(self, folder: Path, keep_days: int) -> None:
        self.path = folder / NAME
        self._keep_s = keep_days * _DAY_S
        self._database: sqlite3.Connection | None = None
        self._boots: dict[str, int] = {}

    def load(self) -> OpenAccount:
        """What is to be known to go on."""
        with self._wrap_errors(), self._open() as database:
            self._boots = {}
            offsets = {}
            for row in database.execute("SELECT * FROM boots"):
                number, boot_id, offset = msgspec.convert(row, _BootRow)
                self._boots[boot_id], offsets[boot_id] = number, offset
            boot_ids = {number: boot_id for boot_id, number in self._boots.items()}
            bookings = [
                BookingBegun(
                    id=id_,
                    container=ContainerName(container),
                    user=None if user is None else UserName(user),
                    slot=SlotId(slot),
                    weight=SlotWeight(profile=profile, gpus=gpus),
                    at=_place_begin(begun, boot_ids.get(boot, ""), offsets),
                )
                for id_, container, user, slot, profile, gpus, begun, boot in map(
                    partial(msgspec.convert, type=_OpenRow),
                    database.execute(
                        "SELECT id, container, user, slot, profile, gpus, begun, begun_boot"
                        " FROM bookings WHERE ended IS NULL ORDER BY id"
                    ),
                )
            ]
            progress, next_id = read_progress(database)
        return OpenAccount(bookings=bookings, offsets=offsets, progress=progress, next_id=next_id)

    def save(
        self, changes: Sequence[AccountingChange], progress: AccountingProgress, next_id: int
    ) -> None:
        """Store changes, in their order, and how far they go; all of it or nothing."""
        with self._wrap_errors(), self._open() as database, transaction(database):
            check_journal(self.path)
            for change in changes:
                self._store_change(database, change)
            write_progress(database, progress, next_id)
            if progress.observed is not None:
                _drop_old(database, progress.observed.wall - self._keep_s)

    def set_aside(self) -> None:
        """Keep a damaged file beside, for who wants to rescue more than the history has."""
        self.close()
        # Its journal first: SQLite would play it into the next file of this name.
        for suffix in ("-wal", "-shm", ""):
            path = self.path.with_name(f"{NAME}{suffix}")
            with suppress(OSError):
                path.replace(path.with_name(f"{NAME}.broken{suffix}"))

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()

    def _store_change(self, database: sqlite3.Connection, change: AccountingChange) -> None:
        match change:
            case BookingBegun(at=at, weight=weight):
                database.execute(
                    "INSERT INTO bookings (id, container, user, slot, profile, gpus, begun,"
                    " begun_boot) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        change.id,
                        _to_text(change.container),
                        None if change.user is None else _to_text(change.user),
                        _to_text(change.slot),
                        _to_text(weight.profile),
                        weight.gpus,
                        at.wall,
                        self._number_boot(at),
                    ),
                )
            case BookingChanged():
                database.execute(
                    "UPDATE bookings SET container = ?, user = ? WHERE id = ?",
                    (
                        _to_text(change.container),
                        None if change.user is None else _to_text(change.user),
                        change.id,
                    ),
                )
            case BookingEnded(at=at):
                # Its times so far are in its hours alone: a save each minute writes nothing else.
                database.execute(
                    "UPDATE bookings SET ended = ?, ended_boot = ?, reason = ?, (used, idle,"
                    " retained) = (SELECT IFNULL(SUM(used), 0), IFNULL(SUM(idle), 0),"
                    " IFNULL(SUM(retained), 0) FROM hours WHERE booking = ?) WHERE id = ?",
                    (at.wall, self._number_boot(at), change.reason, change.id, change.id),
                )
            case TimeDivided(seconds=seconds):
                database.execute(
                    "INSERT INTO hours VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " used = used + excluded.used, idle = idle + excluded.idle,"
                    " retained = retained + excluded.retained",
                    (change.id, change.hour, *(seconds.get(use, 0.0) for use in SlotUse)),
                )
            case ClockSet():
                self._set_clock(database, change)

    def _set_clock(self, database: sqlite3.Connection, change: ClockSet) -> None:
        database.execute(
            "INSERT INTO boots (boot_id, offset) VALUES (?, ?)"
            " ON CONFLICT (boot_id) DO UPDATE SET offset = excluded.offset",
            (change.boot_id, change.offset),
        )
        query = "SELECT number FROM boots WHERE boot_id = ?"
        (number,) = database.execute(query, (change.boot_id,)).fetchone()
        self._boots[change.boot_id] = number
        # Decision 247: the times of a boot move together, so no duration is changed.
        if change.step_s:
            for statement in (
                "UPDATE bookings SET begun = begun + ? WHERE begun_boot = ?",
                "UPDATE bookings SET ended = ended + ? WHERE ended_boot = ?",
            ):
                database.execute(statement, (change.step_s, number))

    def _number_boot(self, at: Now) -> int:
        # 0 is no boot's number: times of a boot whose clock is not known are never moved.
        return self._boots.get(at.boot_id, 0)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if self._database is None:
            self._database = open_database(self.path)
        yield self._database

    @contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a damaged byte makes any value of any other
            # The next call opens it again: by then it may be another file, or repaired.
            self.close()
            reason = f"the accounting in {self.path} was not written: {error}"
            is_passing = isinstance(error, OSError | sqlite3.OperationalError)
            # What its damaged schema lacks does not come back by itself.
            is_passing &= re.search(r"no such|no column|columns but", str(error)) is None
            raise (WriteFailed if is_passing else AccountingBroken)(reason) from error


def _drop_old(database: sqlite3.Connection, before: float) -> None:
    """Drop bookings that ended before, some at a time: a pass must not wait for thousands."""
    old = database.execute(
        "SELECT id FROM bookings WHERE ended < ? ORDER BY ended LIMIT ?", (before, _DROPPED_AT_ONCE)
    ).fetchall()
    database.executemany("DELETE FROM hours WHERE booking = ?", old)
    database.executemany("DELETE FROM bookings WHERE id = ?", old)


def _place_begin(begun: float, boot_id: str, offsets: Mapping[str, float]) -> Now:
    boot = begun - offsets.get(boot_id, begun)
    return Now(wall=Wall(begun), boot=Boot(boot), boot_id=boot_id)


def _to_text(text: str) -> str:
    """SQLite takes no lone surrogate, and the books of others may have one."""
    return text.encode("utf-8", "backslashreplace").decode()
