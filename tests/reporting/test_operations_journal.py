"""Lines of the operations log in syslog: as a real socket gets them, and where nobody reads it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ds01d.adapters.books.operations_format import format_line
from ds01d.adapters.books.operations_log import OperationsLog
from ds01d.model.actor import Actor
from ds01d.model.books import LogLine
from ds01d.model.primitives import Wall
from ds01d.reporting.operations_journal import OperationsJournal

LINE = LogLine(
    at=Wall(1_800_000_000.0),
    operation="release",
    user="alice",
    container="train._.1001",
    gpu="1.2",
    status="success",
    details="RELEASED",
    actor=Actor(uid=0, login="root", pid=77, sudo_uid=1002, sudo_login="bob"),
)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "socket"))
        receiver.settimeout(60)
        yield receiver


def sent(line: LogLine) -> tuple[LogLine, str]:
    return line, format_line(line)


def test_journald_gets_the_line_of_the_file_with_its_fields(
    reader: socket.socket, tmp_path: Path
) -> None:
    path = tmp_path / "operations.log"
    journal = OperationsJournal(journal=tmp_path / "socket")
    OperationsLog(path, journal).append(LINE)
    fields = dict(
        text.split("=", 1) for text in reader.recv(65536).decode().splitlines() if "=" in text
    )
    assert fields["MESSAGE"] == path.read_text().rstrip("\n")
    assert fields["MESSAGE"].endswith("|RELEASED; by root (uid 0, pid 77), sudo by bob (uid 1002)")
    assert {key: fields[key] for key in fields if key not in {"MESSAGE", "MESSAGE_ID"}} == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "ds01-container",
        "DS01_EVENT": "booking.changed",
        "DS01_OPERATION": "release",
        "DS01_CONTAINER": "train._.1001",
        "DS_CONTAINER": "train._.1001",
        "DS01_SLOT": "1.2",
        "DS01_USER": "alice",
        "DS01_OUTCOME": "success",
        "DS01_UID": "0",
        "DS01_LOGIN": "root",
        "DS01_PID": "77",
        "DS01_SUDO_UID": "1002",
        "DS01_SUDO_LOGIN": "bob",
    }


def test_a_name_makes_no_field_of_its_own(reader: socket.socket, tmp_path: Path) -> None:
    line = LogLine(
        at=LINE.at,
        operation="start",
        user="eve",
        container="x\nPRIORITY=0\nDS01_UID=0",
        gpu="N/A",
        status="success",
        details="",
    )
    OperationsJournal(journal=tmp_path / "socket").send([sent(line)])
    data = reader.recv(65536)
    assert b"DS01_CONTAINER\n\x17\0\0\0\0\0\0\0x\nPRIORITY=0\nDS01_UID=0\n" in data
    assert data.startswith(b"MESSAGE=2027-01-15 ")


def test_a_host_without_journald_has_syslog(reader: socket.socket, tmp_path: Path) -> None:
    journal = OperationsJournal(journal=tmp_path / "none", syslog=tmp_path / "socket")
    journal.send([sent(LINE)])
    text = reader.recv(65536).decode()
    assert text.startswith("<14>")
    assert text.endswith(f" ds01-container: {format_line(LINE)}")


def test_a_host_without_any_gets_none(tmp_path: Path) -> None:
    journal = OperationsJournal(journal=tmp_path / "none", syslog=tmp_path / "no")
    journal.send([sent(LINE)] * 3)
    assert journal.flush()
    assert journal.lost == 0


def fill(path: Path) -> int:
    """Fill a socket; how many datagrams it took."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        taken = 0
        with suppress(BlockingIOError):
            while True:
                sender.sendto(b"x", str(path))
                taken += 1
    return taken


def test_a_syslog_that_hangs_delays_nobody_and_gets_all_later_in_order(
    reader: socket.socket, tmp_path: Path
) -> None:
    path = tmp_path / "operations.log"
    full = fill(tmp_path / "socket")
    journal = OperationsJournal(journal=tmp_path / "socket")
    log = OperationsLog(path, journal)
    names = [f"c{number}" for number in range(5)]
    for name in names:
        log.append(LogLine(at=LINE.at, operation="start", user="a", container=name, gpu="0",
                           status="success", details=""))  # fmt: skip
    assert len(path.read_text().splitlines()) == 5, "the file does not wait"
    for _ in range(full):
        reader.recv(16)
    assert journal.flush()
    received = [reader.recv(65536).decode() for _ in names]
    assert [f"DS01_CONTAINER={name}\n" in text for name, text in zip(names, received, strict=True)]
    assert [text.splitlines()[0].removeprefix("MESSAGE=") for text in received] == (
        path.read_text().splitlines()
    )


def test_a_command_waits_for_it_within_its_patience(reader: socket.socket, tmp_path: Path) -> None:
    fill(tmp_path / "socket")
    journal = OperationsJournal(patience_s=0.1, journal=tmp_path / "socket")
    began = time.monotonic()
    journal.send([sent(LINE)])
    assert time.monotonic() - began >= 0.1
    assert not journal.flush()


def test_what_waits_is_bounded_and_what_is_lost_is_counted(
    reader: socket.socket, tmp_path: Path
) -> None:
    fill(tmp_path / "socket")
    journal = OperationsJournal(journal=tmp_path / "socket")
    journal.send([sent(LINE)] * 10_007)
    assert journal.lost == 7
