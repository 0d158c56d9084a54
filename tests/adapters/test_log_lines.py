"""A log that grows, is rotated, emptied, compressed and made anew while it is read."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.log_lines import LogLines
from ds01d.errors import Ds01Error


class Log:
    """A private log, and its reader."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "operations.log"
        self.reader = LogLines(self.path)

    def add(self, text: str, end: str = "") -> None:
        with self.path.with_name(f"{self.path.name}{end}").open("a") as file:
            file.write(text)

    def rotated(self, end: str, text: str, age: int) -> None:
        path = self.path.with_name(f"{self.path.name}{end}")
        data = gzip.compress(text.encode()) if end.endswith(".gz") else text.encode()
        path.write_bytes(data)
        os.utime(path, (1e9 - age, 1e9 - age))

    def rotate(self) -> None:
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))

    def past(self) -> list[str]:
        return list(self.reader.past())

    def fresh(self) -> list[str]:
        return list(self.reader.fresh())

    def last(self) -> list[str]:
        return list(self.reader.last())


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    one = Log(tmp_path)
    yield one
    one.reader.close()


def test_a_missing_log_is_empty_and_may_come(log: Log) -> None:
    assert log.past() == []
    assert log.fresh() == []
    log.add("a\n")
    assert log.fresh() == ["a"]


def test_rotated_files_come_first_the_oldest_before(log: Log) -> None:
    log.add("d\n")
    log.rotated(".1", "c", age=10)
    log.rotated(".2.gz", "b\n", age=20)
    log.rotated("-20261101.gz", "a\n", age=30)
    log.rotated(".swp", "nothing\n", age=5)
    log.rotated(".1.bak", "nothing\n", age=5)
    assert log.past() == ["a", "b", "c", "d"]
    assert log.reader.troubles == []


def test_a_broken_rotated_file_is_a_trouble_and_no_end(log: Log) -> None:
    log.add("b\n")
    log.rotated(".2.gz", "a\n" * 3, age=20)
    broken = log.path.with_name(f"{log.path.name}.2.gz")
    broken.write_bytes(broken.read_bytes()[:-6])
    log.path.with_name(f"{log.path.name}.3").symlink_to("/etc/passwd")
    assert log.past()[-1] == "b"
    assert len(log.reader.troubles) == 2
    assert any(".2.gz cannot be read to its end" in one for one in log.reader.troubles)
    assert any(".3 is a symbolic link" in one for one in log.reader.troubles)


@pytest.mark.parametrize("kind", ["folder", "link", "no folder"])
def test_what_is_no_log_is_an_error(log: Log, kind: str) -> None:
    match kind:
        case "folder":
            log.path.mkdir()
        case "link":
            log.path.symlink_to("/etc/passwd")
        case _:
            log.reader = LogLines(log.path.parent / "none" / "operations.log")
    with pytest.raises(Ds01Error, match="the operations log cannot be read"):
        log.past()


def test_what_is_no_line_yet_waits(log: Log) -> None:
    log.add("a\nb")
    assert log.past() == ["a"]
    assert log.fresh() == []
    log.add("c\nd")
    assert log.fresh() == ["bc"]
    assert log.last() == ["d"]
    assert log.last() == []


def test_following_goes_on_over_a_rotation(log: Log) -> None:
    log.add("a\n")
    assert log.past() == ["a"]
    log.add("b\n")
    log.rotate()
    assert log.fresh() == ["b"]
    log.add("late\nopen end", ".1")
    log.add("c\n")
    assert log.fresh() == ["late", "open end", "c"]
    log.add("d\n")
    assert log.fresh() == ["d"]


@pytest.mark.parametrize("after", ["", "x\n", "a much longer line than there was before\n"])
def test_and_over_a_log_that_is_emptied_in_place(log: Log, after: str) -> None:
    log.add("a\nb\nhalf")
    assert log.past() == ["a", "b"]
    log.path.write_text(after)
    assert log.fresh() == after.splitlines()
    log.add("c\n")
    assert log.fresh() == ["c"]


def test_a_line_without_end_does_not_fill_the_memory(log: Log) -> None:
    log.add("x" * (5 << 20))
    assert sum(map(len, log.past())) + sum(map(len, log.last())) == 5 << 20
    assert max(map(len, LogLines(log.path).past())) <= 3 << 20


def test_bytes_that_are_no_text_are_lines_too(log: Log) -> None:
    log.path.write_bytes(b"\xff\x00\n\r\n\n")
    assert log.past() == ["\ufffd\0", "", ""]


@given(parts=st.lists(st.text(alphabet="ab\n"), max_size=8))
def test_however_it_grows_every_line_comes_once(
    parts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    log.add("")
    found = log.past()
    for part in parts:
        log.add(part)
        found += log.fresh()
    found += log.last()
    log.reader.close()
    text = "".join(parts)
    assert found == (text.removesuffix("\n").split("\n") if text else [])
