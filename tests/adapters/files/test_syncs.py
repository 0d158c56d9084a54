"""Syncs that are put off are made together with the next one, and all of them."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.files import syncs
from ds01d.errors import HistoryFailed, WriteFailed


class Disk:
    """Which files were synced, by name; `broken`: those that cannot be."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.synced: list[str] = []
        self.broken: set[str] = set()
        self.meeting: threading.Barrier | None = None
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if self.meeting is not None:
            self.meeting.wait(timeout=20)  # so many are under way at the same time
        if name in self.broken:
            raise OSError(errno.EIO, "Input/output error")
        self.synced.append(name)

    def later(self, name: str) -> None:
        """Put off the sync of a file, and close it."""
        with (self._folder / name).open("wb") as file:
            syncs.sync_later(file.fileno(), lambda error: HistoryFailed(f"{name}: {error}"))

    def fail_after(self, name: str, error: Exception) -> None:
        self.later(name)
        raise error

    def sync(self, name: str) -> None:
        with (self._folder / name).open("wb") as file:
            syncs.sync(file.fileno())


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    before = set(Path("/proc/self/fd").iterdir())
    yield Disk(tmp_path, monkeypatch)
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_what_is_put_off_is_synced_with_the_next_one_at_the_same_time(disk: Disk) -> None:
    disk.meeting = threading.Barrier(3)
    with syncs.join_syncs():
        disk.later("history")
        disk.later("folder")
        assert disk.synced == []
        disk.sync("state")
        assert sorted(disk.synced) == ["folder", "history", "state"]


def test_otherwise_nothing_is_put_off(disk: Disk) -> None:
    disk.later("history")
    assert disk.synced == ["history"]
    with syncs.join_syncs():
        other = threading.Thread(target=disk.later, args=("status",))
        other.start()
        other.join()
        assert disk.synced == ["history", "status"]


def test_at_the_end_everything_is_synced_however_it_ends(disk: Disk) -> None:
    with syncs.join_syncs():
        disk.later("one")
    assert disk.synced == ["one"]
    with pytest.raises(ZeroDivisionError), syncs.join_syncs():
        disk.fail_after("two", ZeroDivisionError())
    assert disk.synced == ["one", "two"]
    disk.later("three")
    assert disk.synced == ["one", "two", "three"]


def test_what_relies_on_it_without_a_sync_asks_for_it(disk: Disk) -> None:
    with syncs.join_syncs():
        syncs.flush()
        disk.later("history")
        syncs.flush()
        assert disk.synced == ["history"]
    assert disk.synced == ["history"]


def test_a_failure_is_raised_before_anything_relies_on_it(disk: Disk) -> None:
    disk.broken = {"history"}
    with pytest.raises(HistoryFailed, match=r"history: .*Input/output error"):
        disk.later("history")
    with syncs.join_syncs():
        disk.later("history")
        with pytest.raises(HistoryFailed):
            disk.sync("state")
        assert disk.synced == ["state"]
    with pytest.raises(HistoryFailed), syncs.join_syncs():
        disk.later("history")
    with pytest.raises(WriteFailed), syncs.join_syncs():
        disk.fail_after("history", WriteFailed("what ended it"))


def test_a_failure_of_its_own_is_an_error_of_the_system(disk: Disk) -> None:
    disk.broken = {"state"}
    with syncs.join_syncs(), pytest.raises(OSError, match="Input/output error"):
        disk.sync("state")


def test_without_threads_they_are_made_one_after_the_other(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with syncs.join_syncs():
        disk.later("history")
        disk.sync("state")
    assert disk.synced == ["history", "state"]


def test_they_are_joined_once(disk: Disk) -> None:
    with syncs.join_syncs():
        disk.later("history")
        with pytest.raises(RuntimeError, match="joined already"), syncs.join_syncs():
            pass
        disk.sync("state")
    assert sorted(disk.synced) == ["history", "state"]
