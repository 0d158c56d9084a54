"""Copies of broken files: kept, never overwritten, not without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.adapters.files.backups import keep_copy
from ds01d.errors import WriteFailed


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.iterdir()}


def test_a_copy_is_kept_under_its_time_for_nobody_else_to_read(tmp_path: Path) -> None:
    copy = keep_copy(tmp_path / "keep", "gpu-state.broken", b"{")
    assert copy.name.startswith("gpu-state.broken-2")
    assert copy.suffix == ".json"
    assert copy.read_bytes() == b"{"
    assert copy.stat().st_mode & 0o777 == 0o600


def test_only_the_newest_of_a_kind_are_kept(tmp_path: Path) -> None:
    keep_copy(tmp_path, "other", b"other")
    for number in range(23):
        keep_copy(tmp_path, "broken", b"%d" % number, newest=20)
    assert contents(tmp_path) == {b"other"} | {b"%d" % number for number in range(3, 23)}


def test_the_same_is_not_kept_twice_in_a_row(tmp_path: Path) -> None:
    first = keep_copy(tmp_path, "broken", b"{")
    assert keep_copy(tmp_path, "broken", b"{") == first
    assert len(list(tmp_path.iterdir())) == 1


def test_no_copy_is_overwritten_when_the_clock_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        @staticmethod
        def now(_zone: object) -> Stopped:
            return Stopped()

        @staticmethod
        def strftime(_form: str) -> str:
            return "20261123T110000.000000Z"

    monkeypatch.setattr("ds01d.adapters.files.backups.datetime", Stopped)
    for data in (b"a", b"b", b"c"):
        keep_copy(tmp_path, "broken", data)
    assert contents(tmp_path) == {b"a", b"b", b"c"}


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="file/keep"):
        keep_copy(tmp_path / "file" / "keep", "broken", b"{")


def test_all_stems_together_are_bounded_too(tmp_path: Path) -> None:
    """One broken record for each of very many names: nobody may fill ds01d's disk so."""
    for number in range(8):
        keep_copy(tmp_path, f"name{number}", b"%d" % number, newest_of_all=5)
        os.utime(next(tmp_path.glob(f"name{number}-*")), ns=(number, number))
    keep_copy(tmp_path, "last", b"9", newest_of_all=5)
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [
        b"4",
        b"5",
        b"6",
        b"7",
        b"9",
    ]
