"""What was undone is not done again, until its subject changes."""

from __future__ import annotations

from ds01d.model.drift import Kind
from tests.decide.test_diff import live
from tests.reconcile.test_undo import books, done, of, released, repaired, undo


def test_the_hold_ends_when_the_container_changes() -> None:
    life, place, _, after = repaired(of(Kind.EXPIRED_HOLD))
    undo(life, done(life)[0].entry.id)
    live(life, 120.0)
    assert place.booked() == {place.first}
    life.remove(place.name)
    live(life, 300.0)
    assert books(life.host) == after


def test_the_hold_ends_when_the_allocator_books_it_anew() -> None:
    life, place, entry = released()
    undo(life, entry)
    life.sweep()
    place.write_slot(place.first, containers=(), users={})
    life.sweep()
    life.book(place.first, name=place.name)
    live(life, 3600.0)
    assert place.booked() == set()
