"""Changing the books as one: read, act, write the state and then what belongs to it, or nothing.

Under the books' lock, which is waited for a bounded time. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from ds01d.decide.bookings import Bookings, revert_change
from ds01d.errors import BooksChanged, BooksUnreadable, Ds01Error, WriteFailed
from ds01d.model.books import AllocatorState, BadRecord, Record, Unreadable
from ds01d.model.primitives import ContainerName, Unknown
from ds01d.reconcile.ports import BooksWorld

MISSING = "missing"  # the digest of a state that is not there
ATTEMPTS = 5  # a writer without the lock may change the file under us this often

T = TypeVar("T")


class Transactions:
    """Changes of the books of one world."""

    def __init__(self, world: BooksWorld) -> None:
        self._world = world

    def read_books(self) -> Bookings:
        """State and metadata. Raises `BooksUnreadable`."""
        state = self._world.state.read()
        if isinstance(state, Unreadable):
            new = " (on a new host: ds01-allocator sync)" if state.digest == MISSING else ""
            raise BooksUnreadable(f"{state.reason}: ds01d rebuilds it{new}")
        if isinstance(state, Unknown):
            raise BooksUnreadable(state.reason)
        return Bookings(state=state, records=self.read_records())

    def read_records(self) -> dict[ContainerName, Record | BadRecord]:
        """The metadata. Raises `BooksUnreadable`."""
        records = self._world.metadata.read()
        if isinstance(records, Unknown):
            raise BooksUnreadable(records.reason)
        return dict(records)

    def apply_change(self, act: Callable[[Bookings], T]) -> T:
        """Act on the books under their lock; afresh where somebody without it came in between."""
        changed = ""
        with self._world.state.lock():
            for _ in range(ATTEMPTS):
                try:
                    return act(self._read_merged())
                except BooksChanged as error:  # noqa: PERF203 - five times at most
                    changed = str(error)
        raise BooksChanged(f"another writer changed the books {ATTEMPTS} times: {changed}")

    def write_state(self, books: Bookings, after: AllocatorState, then: Callable[[], None]) -> None:
        """Write the state and do what belongs to it; if that fails, put the state back."""
        written = self._world.state.write(after, onto=books.state.digest)
        with suppress(Ds01Error):  # its copies are a help, and not everybody may make them
            self._world.state.save_last_good()
        try:
            then()
        except BaseException as error:
            self._restore_state(books, after, written, error)
            raise

    def drop_record(self, record: Record | BadRecord | None) -> None:
        """Remove a record, if there is one that may be removed."""
        if isinstance(record, Record) or (record is not None and record.replaceable):
            self._world.metadata.remove(record.container, onto=record.digest)

    def _read_merged(self) -> Bookings:
        """The books, with what a writer without the lock put into a file that was replaced."""
        books = self.read_books()
        if not books.state.merge:
            return books
        state = self._world.state.write(books.state, onto=books.state.digest)
        return replace(books, state=state)

    def _restore_state(
        self, books: Bookings, after: AllocatorState, written: AllocatorState, why: BaseException
    ) -> None:
        try:
            before = revert_change(written, books, after)
            self._world.state.write(before, onto=written.digest)
        except Ds01Error as error:
            raise WriteFailed(f"{why}; and the state could not be put back: {error}") from why
