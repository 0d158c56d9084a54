"""Bookings that others make: noticed when the file changes, at most once a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds01d.daemon.books_watch import EVERY_S, Bookings, BooksWatch
from ds01d.model.books import Unreadable
from ds01d.model.primitives import Boot, ContainerName, Digest, SlotId
from tests.support.build import books, slot

A, B = ContainerName("a._.1001"), ContainerName("b._.1001")


class Books:
    """A state file and what is published of it, on a clock that tests move."""

    def __init__(self, path: Path) -> None:
        self.path, self.now, self.reads = path, 100.0, 0
        self.state: object = books(slot("1.0", A), slot("1.1"))
        self.published: Bookings = frozenset({(A, SlotId("1.0"))})
        self.watch = BooksWatch(path, self._read, lambda: Boot(self.now))
        self.write()

    def _read(self) -> object:
        self.reads += 1
        return self.state

    def write(self, state: object | None = None) -> None:
        self.state = self.state if state is None else state
        fresh = self.path.with_name("fresh")
        fresh.write_text("x")
        fresh.rename(self.path)

    def changed(self, after: float = EVERY_S) -> set[ContainerName]:
        self.now += after
        return set(self.watch.find_changes(lambda: self.published))


@pytest.fixture
def there(tmp_path: Path) -> Books:
    return Books(tmp_path / "gpu-state.json")


def test_who_was_booked_released_or_moved_is_named(there: Books) -> None:
    assert there.changed() == set()
    there.write(books(slot("1.0", A), slot("1.1", B)))
    assert there.changed() == {B}
    there.write(books(slot("1.0"), slot("1.1", A)))
    assert there.changed() == {A}


def test_a_file_that_stays_is_not_read_again(there: Books) -> None:
    for _ in range(10):
        there.changed()
    assert there.reads == 1


def test_a_writer_who_never_rests_is_looked_at_once_a_second(there: Books) -> None:
    found: list[ContainerName] = []
    for _ in range(100):
        there.write(books(slot("1.0"), slot("1.1", B)))
        found += there.changed(after=0.1)
    assert there.reads <= 11
    assert set(found) == {A, B}
    assert 0 < there.watch.wait_s() <= EVERY_S


def test_what_is_no_state_is_left_to_the_sweeps(there: Books) -> None:
    there.write(Unreadable(reason="torn", digest=Digest("torn")))
    assert there.changed() == set()
    there.path.unlink()
    assert there.changed() == set()
    there.write(books(slot("1.1", B)))
    assert there.changed() == {A, B}
