"""Writes the books that a repair expects, and verifies what the state file has then."""

from __future__ import annotations

from ds01d.decide.decision import Decision
from ds01d.decide.expected_books import ExpectedBooks, RecordChange
from ds01d.errors import Ds01Error
from ds01d.model.books import AllocatorState, Booking
from ds01d.model.drift import Drift, Kind
from ds01d.model.primitives import ContainerName, Digest, Unknown
from ds01d.reconcile.ports import World


def write_state(decision: Decision, books: ExpectedBooks, world: World) -> AllocatorState | None:
    """Write the state if it has to change; gives the state that the file has then, if readable."""
    state = decision.snapshot.state
    if books.state is None or isinstance(state, Unknown):
        return state if isinstance(state, AllocatorState) else None
    return world.state.write(books.state.without_derived(), onto=Digest(state.digest))


def write_records(books: ExpectedBooks, world: World) -> dict[ContainerName, str]:
    """Write and remove metadata files; gives the failures by name."""
    # All texts are rendered before the first write: of swapped names each base is the other's file.
    texts = {
        change.name: world.metadata.render_record(change.record, base=change.base)
        for change in books.records
        if change.record is not None and change.base is not None
    }
    outcomes = {
        change.name: _write_record(change, texts.get(change.name), world)
        for change in books.records
    }
    return {name: why for name, why in outcomes.items() if why is not None}


def _write_record(change: RecordChange, text: str | None, world: World) -> str | None:
    try:
        if text is not None:
            world.metadata.restore_text(change.name, text, onto=change.onto)
        elif change.record is not None:
            world.metadata.write(change.record, onto=change.onto)
        elif change.onto is not None:
            world.metadata.remove(change.name, onto=change.onto)
    except Ds01Error as error:
        return str(error)
    return None


def verify_bookings(
    drift: Drift, bookings: frozenset[Booking] | None, derived: frozenset[Booking]
) -> str | None:
    """Why the state file is not as it should be after the write; None if it is."""
    if bookings is None or drift.kind is Kind.UNREADABLE_STATE:
        return None
    # Read back, since a writer without the lock may have had the old file in memory.
    if drift.taken & bookings - drift.given:
        return "another writer restored the booking right after the write"
    if drift.given - bookings - derived:  # what follows from requests is never written
        return "another writer removed the booking right after the write"
    return None
