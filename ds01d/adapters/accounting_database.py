"""The database of the accounting: its tables, how it is opened, and how far it has come."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ds01d.model.accounting import AccountingProgress
from ds01d.model.primitives import Boot, Now, Wall

NAME: Final = "accounting.sqlite"
MOST_JOURNAL_BYTES: Final = 64 << 20
_JOURNAL_BYTES: Final = 4 << 20
_VERSION: Final = 1
_JOURNAL_MODE: Final = "journal_mode = WAL"
_MODE: Final = 0o640  # who uses what is for operators
# Decision 252: what a damaged file gives is checked as everything that others write.
Moment = Annotated[float, msgspec.Meta(ge=-1e11, le=253_402_300_799)]  # the end of year 9999
BookingNumber = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_ProgressRow = tuple[
    int | None,
    int | None,
    str,
    Moment | None,
    Moment | None,
    str | None,
    Moment | None,
    Moment | None,
    BookingNumber,
]
_SCHEMA: Final = """
CREATE TABLE boots (
    number INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL UNIQUE,
    offset REAL NOT NULL
);
CREATE TABLE bookings (
    id INTEGER PRIMARY KEY,
    container TEXT NOT NULL,
    user TEXT,
    slot TEXT NOT NULL,
    profile TEXT NOT NULL,
    gpus REAL,
    begun REAL NOT NULL,
    begun_boot INTEGER NOT NULL,
    ended REAL,
    ended_boot INTEGER,
    reason TEXT,
    used REAL NOT NULL DEFAULT 0,
    idle REAL NOT NULL DEFAULT 0,
    retained REAL NOT NULL DEFAULT 0
);
CREATE INDEX ends ON bookings (ended);
CREATE INDEX users ON bookings (user);
CREATE TABLE hours (
    booking INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    used REAL NOT NULL DEFAULT 0,
    idle REAL NOT NULL DEFAULT 0,
    retained REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (booking, hour)
) WITHOUT ROWID;
CREATE TABLE progress (
    inode INTEGER, bytes INTEGER, applied TEXT NOT NULL,
    observed REAL, observed_boot REAL, observed_boot_id TEXT,
    complete_since REAL, sampled_since REAL, next_id INTEGER NOT NULL
);
"""


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Connect to a file that is there."""
    # mode=rw: or SQLite would make a missing file, owned by a reader.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=timeout_s,
        # `transaction` begins and ends them; Python would begin one by itself before each write.
        isolation_level=None,
        cached_statements=16,
    )


def check_journal(path: Path) -> None:
    """Raise `OSError` where the journal has grown so long that a reader must be holding it."""
    try:
        size = path.with_name(f"{path.name}-wal").stat().st_size
    except FileNotFoundError:
        return
    # A reader that was stopped in the midst keeps SQLite from beginning it again.
    if size > MOST_JOURNAL_BYTES:
        reason = f"its journal has {size >> 20} MiB: end the program that reads it"
        raise OSError(errno.EFBIG, reason)


def open_database(path: Path) -> sqlite3.Connection:
    """Open it to write, and make it if need be. Raises `sqlite3.Error` or `OSError`."""
    try:
        # Never opened besides: a close would take away the locks of readers in this process.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "it is not a regular file")
    except FileNotFoundError:
        _make_database(path)
    # Never waits: what is not stored now is stored later.
    database = connect(path, timeout_s=0.0)
    try:
        # Decision 248: what a crash of the host takes away is read from the history again.
        for setting in (
            _JOURNAL_MODE,
            "synchronous = NORMAL",
            "cache_size = -256",
            f"journal_size_limit = {_JOURNAL_BYTES}",
        ):
            database.execute(f"PRAGMA {setting}")
        check_format(database)
    except BaseException:
        database.close()
        raise
    return database


def _make_database(path: Path) -> None:
    """Make it under another name: who reads finds none, or all of it, and is in nobody's way."""
    new = path.with_name(f".{path.name}.new")
    # What a killed process left, and of a file that somebody removed, the journal, which SQLite
    # would play into this one.
    for name in (new.name, path.name):
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(f"{name}{suffix}").unlink(missing_ok=True)
    new.unlink(missing_ok=True)
    # SQLite would make it for everybody to read, and its journal by its example.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    os.close(os.open(new, flags, _MODE))
    with closing(connect(new, timeout_s=0.0)) as database:
        database.execute(f"PRAGMA {_JOURNAL_MODE}")
        with transaction(database):
            for statement in _SCHEMA.split(";")[:-1]:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")
    new.rename(path)


def check_format(database: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` if it is no accounting, or one of another ds01d."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        raise sqlite3.DatabaseError(f"it has format {version}, expected {_VERSION}")


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Store all that is done in the block, or nothing."""
    # A deferred one finds out only at its first write that somebody else has the lock.
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def read_progress(database: sqlite3.Connection) -> tuple[AccountingProgress, int]:
    """How far the accounting has come, and the ID of its next booking."""
    row = database.execute("SELECT * FROM progress").fetchone()
    if row is None:
        return AccountingProgress(), 1
    inode, bytes_, applied, wall, boot, boot_id, complete_since, sampled_since, next_id = (
        msgspec.convert(row, _ProgressRow)
    )
    return (
        AccountingProgress(
            place=None if inode is None or bytes_ is None else (inode, bytes_),
            applied=frozenset(applied.split()),
            observed=None
            if wall is None or boot is None or boot_id is None
            else Now(wall=Wall(wall), boot=Boot(boot), boot_id=boot_id),
            complete_since=None if complete_since is None else Wall(complete_since),
            sampled_since=None if sampled_since is None else Wall(sampled_since),
        ),
        next_id,
    )


def write_progress(
    database: sqlite3.Connection, progress: AccountingProgress, next_id: int
) -> None:
    """Replace how far the accounting has come."""
    place, observed = progress.place or (None, None), progress.observed
    clocks = (None,) * 3 if observed is None else (observed.wall, observed.boot, observed.boot_id)
    database.execute("DELETE FROM progress")
    database.execute(
        "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *place,
            " ".join(sorted(progress.applied)),
            *clocks,
            progress.complete_since,
            progress.sampled_since,
            next_id,
        ),
    )
