"""The accounting in SQLite: what is stored is read again; what fails stores nothing at all."""

from __future__ import annotations

import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ds01d.adapters import accounting_database
from ds01d.adapters.accounting_database import NAME
from ds01d.adapters.accounting_file import AccountingFile
from ds01d.adapters.accounting_reader import open_reader
from ds01d.decide.accounts import Accounts
from ds01d.errors import AccountingBroken, WriteFailed
from ds01d.model.accounting import (
    AccountingChange,
    AccountingProgress,
    BookingBegun,
    BookingChanged,
    BookingEnded,
    ClockSet,
    ReportQuery,
    ReportSubject,
    SlotUse,
    SlotWeight,
    TimeDivided,
)
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, UserName, Wall

BOOTED = 1_800_000_000.0
DAY = 86_400.0
DAMAGED = 150
WHOLE = ReportQuery(since=Wall(0.0), until=Wall(BOOTED + 1e7))


def at(boot: float, boot_id: str = "boot-1") -> Now:
    return Now(wall=Wall(BOOTED + boot), boot=Boot(boot), boot_id=boot_id)


def begun(
    number: int,
    boot: float,
    *,
    user: str | None = "alice",
    slot: str = "1.0",
    gpus: float | None = 2 / 7,
    name: str = "train._.1001",
) -> BookingBegun:
    return BookingBegun(
        id=number,
        container=ContainerName(name),
        user=None if user is None else UserName(user),
        slot=SlotId(slot),
        weight=SlotWeight(profile="2g.10gb", gpus=gpus),
        at=at(boot),
    )


def ended(number: int, boot: float) -> BookingEnded:
    return BookingEnded(id=number, at=at(boot), reason="released")


def used(number: int, start: float, **seconds: float) -> TimeDivided:
    hour = int((BOOTED + start) // 3600)
    return TimeDivided(id=number, hour=hour, seconds={SlotUse(k): v for k, v in seconds.items()})


BOOT = ClockSet(boot_id="boot-1", offset=BOOTED, step_s=0.0)


@pytest.fixture(autouse=True)
def _closed_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test has opened: Python 3.13 warns of a connection that is only dropped."""
    files: list[AccountingFile] = []
    begin = AccountingFile.__init__

    def begin_and_note(file: AccountingFile, folder: Path, keep_days: int) -> None:
        begin(file, folder, keep_days)
        files.append(file)

    monkeypatch.setattr(AccountingFile, "__init__", begin_and_note)
    yield
    for file in files:
        file.close()


def store(
    folder: Path, *changes: AccountingChange, seen: float = 1e6, keep_days: int = 1000
) -> AccountingFile:
    file = AccountingFile(folder, keep_days)
    file.load()
    file.save(
        (BOOT, *changes),
        AccountingProgress(
            place=(4, 5),
            applied=frozenset({"b", "a"}),
            observed=at(seen),
            complete_since=Wall(7.0),
            sampled_since=Wall(8.0),
        ),
        next_id=9,
    )
    return file


def report(folder: Path, query: ReportQuery = WHOLE) -> dict[str | None, tuple[float, ...]]:
    """Slot seconds by subject: booked, used, idle, retained; and GPU seconds booked."""
    sums: dict[str | None, tuple[float, ...]] = {}
    with open_reader(folder) as reader:
        assert reader is not None
        for subject, time in reader.sum_times(query, None):
            parts = (time.slots.booked, time.slots.used, time.slots.idle, time.slots.retained)
            before = sums.get(subject, (0.0,) * 5)
            both = zip(before, (*parts, time.gpus.booked), strict=True)
            sums[subject] = tuple(round(a + b, 3) for a, b in both)
    return sums


def test_what_is_stored_is_read_by_the_next_process(tmp_path: Path) -> None:
    file = store(tmp_path, begun(1, 10.0), begun(2, 20.0, user=None, slot="0"), ended(1, 50.0))
    file.close()
    opened = AccountingFile(tmp_path, 1000).load()
    assert [booking.id for booking in opened.bookings] == [2]
    assert opened.bookings[0] == begun(2, 20.0, user=None, slot="0")
    assert (opened.next_id, opened.offsets) == (9, {"boot-1": BOOTED})
    assert opened.progress.place == (4, 5)
    assert opened.progress.applied == {"a", "b"}
    assert opened.progress.observed == at(1e6)


def test_only_the_group_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    store(tmp_path, begun(1, 10.0))
    files = [file for file in tmp_path.iterdir() if file.name.startswith(NAME)]
    assert {file.name for file in files} == {NAME, f"{NAME}-wal", f"{NAME}-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) & 0o137 for file in files} == {0}


def test_a_clock_that_is_set_moves_the_times_of_its_boot_alone(tmp_path: Path) -> None:
    other = ClockSet(boot_id="boot-2", offset=BOOTED, step_s=0.0)
    second = BookingBegun(
        id=2,
        container=ContainerName("b"),
        user=UserName("bob"),
        slot=SlotId("0"),
        weight=SlotWeight(profile="", gpus=1.0),
        at=at(30.0, "boot-2"),
    )
    step = ClockSet(boot_id="boot-1", offset=BOOTED + 3600.0, step_s=3600.0)
    store(tmp_path, other, begun(1, 10.0), second, ended(1, 50.0), step)
    with open_reader(tmp_path) as reader:
        assert reader is not None
        bob, alice = reader.list_bookings(WHOLE, None)
    assert (alice.begin, alice.end) == (BOOTED + 3610.0, BOOTED + 3650.0)
    assert (bob.begin, bob.end) == (BOOTED + 30.0, None)


def test_a_booking_that_goes_on_counts_until_it_was_seen_last(tmp_path: Path) -> None:
    store(tmp_path, begun(1, 10.0), used(1, 10.0, used=30.0), seen=100.0)
    assert report(tmp_path) == {"alice": (90.0, 30.0, 0.0, 0.0, round(90 * 2 / 7, 3))}


def test_a_period_cuts_bookings_to_the_second_and_their_use_by_the_hour(tmp_path: Path) -> None:
    hour = 3600.0
    start = (BOOTED // hour + 1) * hour - BOOTED  # the first full hour
    parts = [used(1, start + n * hour, used=1800.0, idle=900.0) for n in range(4)]
    store(tmp_path, begun(1, start), *parts, ended(1, start + 4 * hour))
    cut = ReportQuery(since=Wall(BOOTED + start + hour), until=Wall(BOOTED + start + 3.5 * hour))
    assert report(tmp_path, cut)["alice"][:4] == (9000.0, 4500.0, 2250.0, 0.0)
    before = ReportQuery(since=Wall(0.0), until=Wall(BOOTED + start))
    assert report(tmp_path, before) == {}


def test_use_within_an_hour_is_spread_over_what_was_booked_of_it(tmp_path: Path) -> None:
    start = (BOOTED // 3600 + 1) * 3600.0 - BOOTED
    store(tmp_path, begun(1, start), used(1, start, used=600.0), ended(1, start + 600.0))
    half = ReportQuery(since=Wall(BOOTED + start + 300.0), until=Wall(BOOTED + start + 1200.0))
    assert report(tmp_path, half)["alice"][:2] == (300.0, 300.0)


def test_it_is_summed_by_user_and_slot_and_a_booking_without_size_weighs_nothing(
    tmp_path: Path,
) -> None:
    store(
        tmp_path,
        begun(1, 0.0),
        begun(2, 0.0, user="bob", slot="0", gpus=1.0),
        begun(3, 0.0, user=None, slot="1.1", gpus=None),
        BookingChanged(id=1, container=ContainerName("new"), user=UserName("carol")),
        *(ended(number, 100.0) for number in (1, 2, 3)),
    )
    assert report(tmp_path) == {
        "bob": (100.0, 0.0, 0.0, 0.0, 100.0),
        "carol": (100.0, 0.0, 0.0, 0.0, round(200 / 7, 3)),
        None: (100.0, 0.0, 0.0, 0.0, 0.0),
    }
    by_slot = ReportQuery(since=Wall(0.0), until=WHOLE.until, by=ReportSubject.SLOT)
    assert set(report(tmp_path, by_slot)) == {"0", "1.0", "1.1"}
    one = ReportQuery(since=Wall(0.0), until=WHOLE.until, slot=SlotId("0"))
    assert set(report(tmp_path, one)) == {"bob"}


def test_bookings_are_listed_newest_first_and_page_by_page(tmp_path: Path) -> None:
    store(tmp_path, *(begun(number, float(number)) for number in range(1, 6)))
    with open_reader(tmp_path) as reader:
        assert reader is not None
        first = ReportQuery(since=Wall(0.0), until=WHOLE.until, most=2)
        assert [one.id for one in reader.list_bookings(first, None)] == [5, 4]
        rest = ReportQuery(since=Wall(0.0), until=WHOLE.until, most=9, before=4)
        assert [one.id for one in reader.list_bookings(rest, None)] == [3, 2, 1]
        assert [*reader.list_bookings(first, [UserName("bob")])] == []
        assert [*reader.list_bookings(first, [])] == []


def test_one_that_is_locked_fails_at_once_and_stores_nothing(tmp_path: Path) -> None:
    file = store(tmp_path, begun(1, 10.0))
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WriteFailed, match="was not written: database is locked"):
            file.save([begun(2, 20.0)], AccountingProgress(), 10)
        other.execute("ROLLBACK")
    assert [booking.id for booking in AccountingFile(tmp_path, 1000).load().bookings] == [1]


def test_a_reader_locks_nobody_out(tmp_path: Path) -> None:
    file = store(tmp_path, begun(1, 10.0))
    with open_reader(tmp_path) as reader:
        assert reader is not None
        assert reader.list_users() == ["alice"]
        file.save([begun(2, 20.0, user="bob")], AccountingProgress(observed=at(1.0)), 10)
        assert reader.list_users() == ["alice"], "all its answers are of one moment"
    with open_reader(tmp_path) as reader:
        assert reader is not None
        assert reader.list_users() == ["alice", "bob"]


def test_what_cannot_be_stored_leaves_no_part_of_it(tmp_path: Path) -> None:
    file = store(tmp_path, begun(1, 10.0))
    with pytest.raises(AccountingBroken):
        file.save([begun(2, 20.0), begun(1, 30.0)], AccountingProgress(), 10)
    assert [booking.id for booking in file.load().bookings] == [1]


def test_a_damaged_one_is_kept_beside_and_made_anew(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"damaged" * 1000)
    file = AccountingFile(tmp_path, 1000)
    with pytest.raises(AccountingBroken, match="not a database"):
        file.load()
    file.set_aside()
    assert not file.load().bookings
    assert (tmp_path / f"{NAME}.broken").read_bytes().startswith(b"damaged")


def test_whatever_byte_is_damaged_it_is_an_error_that_the_daemon_expects(tmp_path: Path) -> None:
    changes = [begun(number, 10.0 * number) for number in range(1, 20)]
    store(tmp_path, *changes, ended(3, 35.0), used(4, 40.0, used=1.0)).close()
    whole = (tmp_path / NAME).read_bytes()
    chance = random.Random(7)
    broken = 0
    for number in range(DAMAGED):
        folder = tmp_path / str(number)
        folder.mkdir()
        data = bytearray(whole)
        # Pages are filled from their end.
        for _ in range(3):
            data[chance.randrange(len(data) // 4096) * 4096 - chance.randrange(1, 600)] ^= 1 << 7
        (folder / NAME).write_bytes(data)
        file = AccountingFile(folder, 1000)
        try:
            Accounts(file.load(), lambda _: None)
            file.save([begun(99, 400.0), ended(2, 450.0)], AccountingProgress(), 101)
            with open_reader(folder) as reader:
                assert reader is not None
                assert [*reader.sum_times(WHOLE, None), *reader.list_bookings(WHOLE, None)]
        except (AccountingBroken, WriteFailed):
            broken += 1
        file.close()
    assert 0 < broken < DAMAGED


@pytest.mark.parametrize("version", [0, 99])
def test_one_of_another_format_is_damaged(tmp_path: Path, version: int) -> None:
    store(tmp_path, begun(1, 10.0)).close()
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    expected = f"format {version}, expected 1"
    with pytest.raises(AccountingBroken, match=expected), open_reader(tmp_path):
        pass
    with pytest.raises(AccountingBroken, match=expected):
        AccountingFile(tmp_path, 1000).load()


def test_the_journal_of_one_that_was_removed_is_not_played_into_the_next(tmp_path: Path) -> None:
    file = store(tmp_path, begun(1, 10.0))
    journal = (tmp_path / f"{NAME}-wal").read_bytes()
    assert journal
    file.close()
    (tmp_path / NAME).unlink()
    (tmp_path / f"{NAME}-wal").write_bytes(journal)
    assert not AccountingFile(tmp_path, 1000).load().bookings


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteFailed):
        AccountingFile(tmp_path, 1000).load()
    assert not (tmp_path / "elsewhere").exists()


def test_a_reader_that_holds_the_journal_for_ever_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store(tmp_path, begun(1, 10.0))
    monkeypatch.setattr(accounting_database, "MOST_JOURNAL_BYTES", 1000)
    with pytest.raises(WriteFailed, match="journal has 0 MiB: end the program that reads it"):
        file.save([begun(2, 20.0)], AccountingProgress(), 10)
    monkeypatch.undo()
    assert [booking.id for booking in file.load().bookings] == [1]


def test_opening_it_again_takes_no_lock_from_a_reader_in_this_process(tmp_path: Path) -> None:
    """Of two descriptors of a file a process' locks go with the first that is closed."""
    store(tmp_path, begun(1, 10.0))
    with open_reader(tmp_path) as reader:
        assert reader is not None
        AccountingFile(tmp_path, 1000).load()
        # Another process that was the last one would take the journal away when it leaves.
        script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); {}; c.close()"
        look = script.format("c.execute('PRAGMA table_list')")
        subprocess.run([sys.executable, "-c", look, str(tmp_path / NAME)], check=True)
        assert (tmp_path / f"{NAME}-wal").exists()
        assert reader.list_users() == ["alice"]


def test_bookings_that_ended_long_ago_are_dropped(tmp_path: Path) -> None:
    changes = (begun(1, 10.0), used(1, 10.0, used=5.0), ended(1, 50.0), begun(2, 10.0))
    file = store(tmp_path, *changes, seen=DAY, keep_days=2)
    assert set(report(tmp_path)) == {"alice"}
    file.save([], AccountingProgress(observed=at(3 * DAY)), 10)
    with open_reader(tmp_path) as reader:
        assert reader is not None
        assert [one.id for one in reader.list_bookings(WHOLE, None)] == [2]
    file.close()
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        assert database.execute("SELECT COUNT(*) FROM hours").fetchone() == (0,)


def test_names_that_no_text_can_have_are_stored_escaped(tmp_path: Path) -> None:
    store(tmp_path, begun(1, 10.0, name="a\udcffb", user="x\udcff'; DROP TABLE bookings; --"))
    with open_reader(tmp_path) as reader:
        assert reader is not None
        (one,) = reader.list_bookings(WHOLE, None)
    assert one.container == "a\\udcffb"


def test_without_a_file_there_is_no_reading_and_none_is_made(tmp_path: Path) -> None:
    with open_reader(tmp_path) as reader:
        assert reader is None
    assert not (tmp_path / NAME).exists()


def test_a_damaged_one_is_not_read(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"damaged" * 1000)
    with pytest.raises(AccountingBroken, match="cannot read the accounting"), open_reader(tmp_path):
        pass
