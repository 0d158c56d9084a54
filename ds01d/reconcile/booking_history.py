"""The history of bookings: what a caller of the service changed, entered as repairs are.

So `ds01ctl history` shows it with its author, `undo` takes it back, and recovery closes what a
killed daemon left open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count

from ds01d.decide.bookings import Bookings
from ds01d.decide.undo_guard import fingerprint_container
from ds01d.errors import Ds01Error
from ds01d.model.books import AllocatorState, Record
from ds01d.model.containers import Container, NotFound
from ds01d.model.history import BooksState, ContainerFingerprint, Entry, Phase, record_slot
from ds01d.model.primitives import ContainerName, Unknown
from ds01d.reconcile import history
from ds01d.reconcile.ports import World

KIND = "booking"
_numbers = count()  # of this process, so that an ID is unique also if the clock is set back


class BookingHistory:
    """Enters changes of one world. Needs the lock of `state_dir`.

    `containers`: the containers concerned as they are now; an undo is refused once they are others.
    """

    def __init__(
        self, world: World, containers: Mapping[ContainerName, ContainerFingerprint]
    ) -> None:
        self._world, self._containers = world, containers

    @contextmanager
    def enter_change(
        self,
        action: str,
        container: ContainerName,
        books: Bookings | None,
        after: AllocatorState | None,
        record: Record | None,
        *,
        reason: str = "",
    ) -> Iterator[None]:
        """Append an entry for a change, make the change in the block, close the entry.

        `books`, `after`: the bookings on both sides, None where they do not change. `record`: the
        metadata after it, None if there is none. `reason`: what the caller gave. Raises
        `HistoryFailed` before the change. An entry that cannot be closed is left to recovery: the
        change was made.
        """
        entry = self._build_entry(action, container, books, after, record, reason=reason)
        with ExitStack() as stack:
            # Decision 217: entry, state and record are durable in this order, in three syncs.
            stack.enter_context(self._world.state_dir.join_syncs())
            history.append_entries(self._world, [entry])
            try:
                yield
                stack.close()
            # Closed whatever ended it: only the next start would close it otherwise.
            except BaseException as error:
                self._close_entry(entry.id, str(error) or type(error).__name__)
                raise
        self._close_entry(entry.id, None)

    def _close_entry(self, entry: str, failure: str | None) -> None:
        try:
            history.close_entries(self._world, {entry: failure})
        except Ds01Error:
            return  # the next start closes it by what the books contain

    def _build_entry(
        self,
        action: str,
        container: ContainerName,
        books: Bookings | None,
        after: AllocatorState | None,
        record: Record | None,
        *,
        reason: str,
    ) -> Entry:
        world, now = self._world, self._world.clock.now()
        old = {} if books is None else books.state.without_derived().slots
        new = {} if after is None else after.without_derived().slots
        changed = [slot for slot in new if new[slot] != old.get(slot)]
        entry = history.make_entry_id(now, f"b{next(_numbers)}")
        before = frozenset() if books is None else frozenset(books.state.find_slots(container))
        booked = frozenset() if after is None else frozenset(after.find_slots(container))
        before_text = world.metadata.read_text(container)
        after_text = None if record is None else world.metadata.render_record(record)
        actor = world.actor
        old_record = None if books is None else books.records.get(container)
        current = record if record is not None else old_record
        by = "" if actor is None else f"asked for {actor}"
        return Entry(
            id=entry,
            at=history.format_utc(now),
            phase=Phase.BEGIN,
            kind=KIND,
            action=action,
            container=container,
            slot=next(iter(sorted(before ^ booked)), None),
            reason=": ".join(filter(None, (by, reason))),
            booking=current.booking if isinstance(current, Record) else None,
            before=BooksState(
                slots={slot: record_slot(old.get(slot)) for slot in changed},
                metadata={container: before_text},
            ),
            after=BooksState(
                slots={slot: record_slot(new[slot]) for slot in changed},
                metadata={container: after_text},
            ),
            boot_id=now.boot_id,
            boot=now.boot,
            change=entry,
            taken=tuple((container, slot) for slot in sorted(before - booked)),
            given=tuple((container, slot) for slot in sorted(booked - before)),
            containers=self._containers,
            by=history.OURSELVES if actor is None else actor.login,
            actor=actor,
        )


def fingerprint_answer(
    name: ContainerName, answer: Container | NotFound | Unknown
) -> Mapping[ContainerName, ContainerFingerprint]:
    """The container behind a name, as Docker answered; nothing where it did not."""
    if isinstance(answer, Unknown):
        return {}
    if isinstance(answer, Container):
        return {name: fingerprint_container(answer)}
    return {name: ContainerFingerprint()}
