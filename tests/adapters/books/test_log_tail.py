"""A log that grows, is rotated, emptied, compressed and made anew while it is read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.books import rotated_logs
from ds01d.adapters.books.log_tail import LogTail
from ds01d.errors import Ds01Error


class Log:
    """A private log, and its reader."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "operations.log"
        self.reader = LogTail(self.path)

    def add(self, text: str, end: str = "") -> None:
        with self.path.with_name(f"{self.path.name}{end}").open("a") as file:
            file.write(text)

    def rotated(self, end: str, text: str, age: int) -> None:
        path = self.path.with_name(f"{self.path.name}{end}")
        packers: dict[str, Callable[[bytes], bytes]] = {
            ".gz": gzip.compress,
            ".bz2": bz2.compress,
            ".xz": lzma.compress,
        }
        path.write_bytes(packers.get(Path(end).suffix, bytes)(text.encode()))
        os.utime(path, (1e9 - age, 1e9 - age))

    def rotate(self) -> None:
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))

    def past(self) -> list[str]:
        return list(self.reader.read_past())

    def fresh(self) -> list[str]:
        return list(self.reader.read_new())

    def last(self) -> list[str]:
        return list(self.reader.read_unfinished())


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
    assert log.reader.problems == []


needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")


@needs_zstd
def test_every_way_of_packing_is_read(log: Log) -> None:
    log.add("f\n")
    log.rotated(".1", "e\n", age=10)
    log.rotated(".2.xz", "d\n", age=20)
    log.rotated(".3.bz2", "c\n", age=30)
    log.rotated("-2026-11-01.gz", "b\n", age=40)
    log.rotated(".5", "a\n", age=50)
    zstd = subprocess.run(["zstd", "-q", "--rm", f"{log.path}.5"], check=True)
    assert zstd.returncode == 0
    os.utime(f"{log.path}.5.zst", (1e9 - 50, 1e9 - 50))
    assert log.past() == list("abcdef")
    assert log.reader.problems == []


def test_with_logrotates_extension_the_number_stands_in_the_middle(log: Log) -> None:
    log.add("c\n")
    log.path.with_name("operations-20261101.log").write_text("b\n")
    log.path.with_name("operations.2.log.gz").write_bytes(gzip.compress(b"a\n"))
    os.utime(log.path.with_name("operations.2.log.gz"), (1e9, 1e9))
    assert log.past() == ["a", "b", "c"]


@pytest.mark.parametrize("end", [".2.Z", ".2.lz4", "-20261101.zip"])
def test_a_file_that_cannot_be_unpacked_is_named(log: Log, end: str) -> None:
    log.add("b\n")
    log.rotated(end, "a\n", age=20)
    assert log.past() == ["b"]
    (trouble,) = log.reader.problems
    assert f"operations.log{end} is left out" in trouble


def test_without_zstd_its_file_is_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    log.add("b\n")
    log.rotated(".2.zst", "a\n", age=20)
    assert log.past() == ["b"]
    (trouble,) = log.reader.problems
    assert "operations.log.2.zst" in trouble
    assert "zstd is not installed" in trouble


@pytest.mark.parametrize(
    "end", [".2.gz", ".2.xz", ".2.bz2", pytest.param(".2.zst", marks=needs_zstd)]
)
def test_one_that_is_cut_short_is_read_as_far_as_it_goes(log: Log, end: str) -> None:
    text = "".join(
        f"{number} {hashlib.sha256(bytes(number)).hexdigest()}\n" for number in range(5000)
    )
    log.add("b\n")
    log.rotated(end, text, age=20)
    path = log.path.with_name(f"operations.log{end}")
    if end.endswith(".zst"):
        packed = subprocess.run(
            ["zstd", "-qc"], input=text.encode(), capture_output=True, check=True
        )
        path.write_bytes(packed.stdout)
    path.write_bytes(path.read_bytes()[:-100])
    assert log.past()[-1] == "b"
    (trouble,) = log.reader.problems
    assert trouble.startswith(f"{path} cannot be read to its end: ")


@pytest.mark.parametrize("end", [".2.gz", ".2.xz", ".2.bz2"])
def test_a_bomb_does_not_go_off(log: Log, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotated_logs, "MAX_BYTES", 3 << 20)
    log.add("b\n")
    log.rotated(end, "x\n" * (4 << 20), age=20)
    found = log.past()
    assert found[-1] == "b"
    assert len(found) <= (4 << 20) // 2 + 2
    (trouble,) = log.reader.problems
    assert trouble.endswith(" is left out from 3 MiB on")


def test_two_streams_in_one_file_are_both_read(log: Log) -> None:
    log.rotated(".2.xz", "a\n", age=20)
    path = log.path.with_name("operations.log.2.xz")
    path.write_bytes(path.read_bytes() + bytes(8) + lzma.compress(b"b\n"))
    assert log.past() == ["a", "b"]
    assert log.reader.problems == []


def test_a_hole_is_skipped_however_large_it_is(log: Log) -> None:
    """copytruncate, and a writer that goes on at its old offset: here behind 500 GB."""
    log.add("a\nhalf")
    with log.path.open("r+b") as file:
        file.seek(500 << 30)
        file.write(b"b\n")
    began = time.process_time()
    assert log.past() == ["a", "half", "b"]
    log.path.write_bytes(b"")
    with log.path.open("r+b") as file:
        file.seek(500 << 30)
        file.write(b"c\n")
    assert log.fresh() == ["c"]
    log.path.rename(f"{log.path}.1")
    log.add("d\n")
    other = LogTail(log.path)
    assert list(other.read_past()) == ["c", "d"]
    other.close()
    assert time.process_time() - began < 5, "500 GB of NULs take minutes"


def test_nuls_that_a_crash_left_end_a_line(log: Log) -> None:
    log.path.write_bytes(b"a\nhalf" + bytes(4096) + b"b\n")
    assert [text for text in log.past() if text] == ["a", "half", "b"]


def test_a_broken_rotated_file_is_a_trouble_and_no_end(log: Log) -> None:
    log.add("b\n")
    log.rotated(".2.gz", "a\n" * 3, age=20)
    broken = log.path.with_name(f"{log.path.name}.2.gz")
    broken.write_bytes(broken.read_bytes()[:-6])
    log.path.with_name(f"{log.path.name}.3").symlink_to("/proc/version")
    assert log.past()[-1] == "b"
    assert len(log.reader.problems) == 2
    assert any(".2.gz cannot be read to its end" in one for one in log.reader.problems)
    assert any(".3 is a symbolic link" in one for one in log.reader.problems)


@pytest.mark.parametrize("kind", ["folder", "link", "no folder"])
def test_what_is_no_log_is_an_error(log: Log, kind: str) -> None:
    match kind:
        case "folder":
            log.path.mkdir()
        case "link":
            log.path.symlink_to("/proc/version")
        case _:
            log.reader = LogTail(log.path.parent / "none" / "operations.log")
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
    assert max(map(len, LogTail(log.path).read_past())) <= 3 << 20


def test_bytes_that_are_no_text_are_lines_too(log: Log) -> None:
    log.path.write_bytes(b"\xff\x00\n\r\n\n")
    assert log.past() == ["\ufffd", "", "", ""]


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
