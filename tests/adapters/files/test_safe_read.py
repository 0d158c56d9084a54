"""Reading: what is no ordinary file is refused, what is missing is told from what is hidden."""

from __future__ import annotations

import os
import pwd
import socket
import time
from pathlib import Path

import pytest

from ds01d.adapters.files.safe_read import (
    NotRead,
    ReadFailure,
    Signature,
    open_file,
    read_bytes,
    read_unchanged,
)
from ds01d.errors import BooksChanged, WriteFailed
from tests.support.scripts import LEASES, output, start


def obstacle(path: Path, limit: int = 100) -> ReadFailure:
    answer = read_bytes(path, limit)
    assert isinstance(answer, NotRead)
    assert str(path) in answer.reason
    return answer.obstacle


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_bytes(tmp_path / "file", 7) == b"content"
    assert read_bytes(tmp_path / "file", 6) != b"conten"


def test_a_large_file_is_not_read_in_part(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 101)
    assert obstacle(tmp_path / "file") is ReadFailure.TOO_LARGE


def test_a_missing_file_is_told_from_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert obstacle(tmp_path / "missing") is ReadFailure.MISSING
    assert obstacle(tmp_path / "missing" / "file") is ReadFailure.NO_FOLDER
    assert obstacle(tmp_path / "file" / "file") is ReadFailure.NO_FOLDER


def test_only_ordinary_files_are_read_and_nothing_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("link", "folder", "fifo", "socket"):
            assert obstacle(tmp_path / name) is ReadFailure.NOT_A_FILE
    assert obstacle(Path("/dev/zero")) is ReadFailure.NOT_A_FILE


def test_no_permission_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0)
    program = """
import os, sys
from pathlib import Path
from ds01d.adapters.files.safe_read import read_bytes
if os.geteuid() == 0:
    os.seteuid(65534)
print(read_bytes(Path(sys.argv[1]), 10).obstacle)
"""
    assert output(program, tmp_path / "file").strip() == "forbidden"


def test_whoever_holds_a_lease_on_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with start(LEASES, path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        answer = read_bytes(path, 10)
        owner.communicate()
    assert isinstance(answer, NotRead)
    assert answer.obstacle is ReadFailure.FAILED
    assert (
        f"its owner holds a lease on it (it is {pwd.getpwuid(os.geteuid()).pw_name}'s"
        in answer.reason
    )


def test_within_a_folder_only_the_name_counts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"here")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert read_bytes(Path("/elsewhere/file"), 10, folder=folder) == b"here"
        missing = read_bytes(Path("/elsewhere/other"), 10, folder=folder)
        assert isinstance(missing, NotRead)
        assert missing.obstacle is ReadFailure.MISSING
    finally:
        os.close(folder)


@pytest.mark.parametrize("stamped", [True, False])
def test_a_file_written_between_two_readings_is_not_taken_for_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stamped: bool
) -> None:
    """Also where the clock that stamps files does not move in between."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    descriptor = open_file(path)
    assert isinstance(descriptor, int)
    if not stamped:
        always = Signature.of(path.stat())
        monkeypatch.setattr(Signature, "of", lambda _status: always)
    real = os.pread
    calls = 0

    def pread(fd: int, length: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        data = real(fd, length, offset)
        if calls == 1:
            path.write_bytes(b"behind")
        return data

    monkeypatch.setattr(os, "pread", pread)
    try:
        assert read_unchanged(descriptor, 100) is None
        assert read_unchanged(descriptor, 100) == b"behind"
    finally:
        os.close(descriptor)


def test_a_fresh_time_stamp_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    signature = Signature.of(path.stat())
    assert signature.is_racy()
    assert not signature.is_racy(within_s=-1000.0)


def test_a_stamp_of_a_clock_that_was_set_back_is_not_taken_for_a_write_just_now() -> None:
    """Or the limits would be "being written" for as many hours."""
    now, hour = time.time_ns(), 3600 * 10**9
    assert not Signature(inode=1, size=1, modified_ns=now + hour, changed_ns=now + hour).is_racy()
    assert not Signature(inode=1, size=1, modified_ns=now - hour, changed_ns=now - hour).is_racy()
    assert Signature(inode=1, size=1, modified_ns=now - hour, changed_ns=now).is_racy()
    assert Signature(inode=1, size=1, modified_ns=now + hour, changed_ns=now).is_racy()


@pytest.mark.parametrize("obstacle", ReadFailure)
def test_only_what_failed_by_itself_was_changed_by_nobody(obstacle: ReadFailure) -> None:
    """Else who writes decides again, by what is there now."""
    error = NotRead(obstacle=obstacle, reason="why").make_write_error()
    assert isinstance(error, WriteFailed) is (obstacle is ReadFailure.FAILED)
    assert isinstance(error, BooksChanged) is (obstacle is not ReadFailure.FAILED)
    assert str(error) == "why"
