"""The newest lines of the operations log, whatever it looks like."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.adapters.books.last_lines import read_last_lines
from ds01d.errors import Ds01Error


def line(number: int) -> str:
    return f"2026-11-29 12:00:00|start|alice|job{number}|1.0|success|{number}\n"


def read_details(path: Path, most: int = 3) -> list[str]:
    return [found.details for found in read_last_lines(path, most)]


def test_the_newest_come_first_and_the_log_of_before_counts(tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    assert read_details(log) == []
    log.write_text("".join(map(line, range(10))))
    assert read_details(log) == ["9", "8", "7"]
    log.rename(tmp_path / "operations.log.1")
    log.write_text(line(10))
    assert read_details(log) == ["10", "9", "8"]
    assert read_details(log, 0) == []


def test_what_is_no_line_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    log.write_bytes(line(1).encode() + b"\0\0\xff|\n\nnonsense\n" + line(2).encode() + b"2026-11-2")
    assert read_details(log) == ["2", "1"]


def test_a_long_log_is_not_read_as_a_whole(tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    with log.open("wb") as file:
        file.truncate(1 << 40)  # a hole
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line(1).encode() + line(2).encode())
    assert read_details(log) == ["2", "1"]


def test_what_is_no_log_is_an_error_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    os.mkfifo(log)
    with pytest.raises(Ds01Error, match="not a regular file"):
        read_last_lines(log, 3)
    (tmp_path / "link").symlink_to("/proc/version")
    with pytest.raises(Ds01Error):
        read_last_lines(tmp_path / "link", 3)
