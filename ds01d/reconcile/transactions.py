"""Transactions on the books: state and metadata are written together or not at all.

Under the books' lock, with a time-out. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from ds01d.decide.bookings import Bookings, revert_change
from ds01d.errors import BooksChanged, BooksUnreadable, Ds01Error, WriteFailed
from ds01d.model.books import MISSING, AllocatorState, BadRecord, Record, Unreadable
from ds01d.model.primitives import ContainerName, Unknown
from ds01d.reconcile.books_ports import BooksWorld

ATTEMPTS = 5  # writers without the lock may change the file in between

T = TypeVar("T")


class Transactions:
    """Reads and changes the books of one world.

    `is_pass_next`: a pass follows, which keeps the copy of the state to rebuild from.
    """

    def __init__(self, world: BooksWorld, *, is_pass_next: bool = False) -> None:
        self._world, self._is_pass_next = world, is_pass_next
        self._has_written = False

    def read_books(self, names: frozenset[ContainerName] | None = None) -> Bookings:
        """State and metadata, with `names` as `read_records`. Raises `BooksUnreadable`."""
        state = self._world.state.read()
        if isinstance(state, Unreadable):
            # A booking on a state that cannot be read could hand out a slot in use: `allocate`
            # refuses, and ds01d rebuilds.
            new = " (on a new host: ds01-allocator sync)" if state.digest == MISSING else ""
            raise BooksUnreadable(f"{state.reason}: ds01d rebuilds it{new}")
        if isinstance(state, Unknown):
            raise BooksUnreadable(state.reason)
        return Bookings(state=state, records=self.read_records(names))

    def read_records(
        self, names: frozenset[ContainerName] | None = None
    ) -> dict[ContainerName, Record | BadRecord]:
        """The metadata, with `names` only theirs as it is now, others as last read.

        Raises `BooksUnreadable`.
        """
        records = self._world.metadata.read(names)
        if isinstance(records, Unknown):
            raise BooksUnreadable(records.reason)
        return dict(records)

    def apply_change(
        self, act: Callable[[Bookings], T], names: frozenset[ContainerName] | None = None
    ) -> T:
        """Call `act` with the books under their lock; again if another writer changed them.

        With `names` the records of others may be as last read, where nobody has changed any since.
        """
        changed = ""
        # One lock for all attempts: a writer that takes it can no longer come in between, only the
        # old scripts, which know no lock.
        with self._world.state.lock():
            for _ in range(ATTEMPTS):
                try:
                    answer = act(self._read_merged(names))
                    break
                except BooksChanged as error:
                    changed = str(error)
            else:
                raise BooksChanged(f"another writer changed the books {ATTEMPTS} times: {changed}")
        self._save_copy()
        return answer

    def write_state(self, books: Bookings, after: AllocatorState, then: Callable[[], None]) -> None:
        """Write the state, then call `then`; if that fails, restore the state and raise."""
        written = self._world.state.write(after, onto=books.state.digest)
        self._has_written = True
        try:
            then()
        # Also for KeyboardInterrupt: a booking without its metadata has no user and no priority.
        except BaseException as error:
            self._restore_state(books, after, written, error)
            raise

    def drop_record(self, record: Record | BadRecord | None) -> None:
        """Remove a record, if there is one that may be removed."""
        # Decision 73: a file that does not say it is this container's record may be somebody's.
        if isinstance(record, Record) or (record is not None and record.replaceable):
            self._world.metadata.remove(record.container, onto=record.digest)

    def _read_merged(self, names: frozenset[ContainerName] | None) -> Bookings:
        """The books, with bookings merged that others wrote into a file replaced meanwhile."""
        # Decision 216: the folder shows whether another record was changed.
        books = self.read_books(names if self._world.metadata.is_current() else None)
        if not books.state.merge:
            return books
        # Invariant 8: bookings of a writer without a lock would be lost with the next write.
        state = self._world.state.write(books.state, onto=books.state.digest)
        return replace(books, state=state)

    def _save_copy(self) -> None:
        if self._has_written and not self._is_pass_next:
            self._has_written = False
            with suppress(Ds01Error):  # not every caller may write it
                self._world.state.save_last_good()

    def _restore_state(
        self, books: Bookings, after: AllocatorState, written: AllocatorState, why: BaseException
    ) -> None:
        try:
            # Not the former file: others may have booked in it since.
            before = revert_change(written, books, after)
            self._world.state.write(before, onto=written.digest)
        except Ds01Error as error:
            raise WriteFailed(f"{why}; and the state could not be put back: {error}") from why
