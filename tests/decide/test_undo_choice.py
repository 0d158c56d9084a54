"""Which change may be undone: one that was done, and that nothing newer rests on."""

from __future__ import annotations

from ds01d.decide.history_outcomes import join_entries
from ds01d.decide.undo_choice import UndoRefusal
from ds01d.model.drift import Kind
from ds01d.reconcile.history import read_entries
from tests.decide.test_diff import host_with, live, places
from tests.reconcile.test_undo import books, done, of, refusal, released, repaired, undo


def test_an_entry_that_is_not_there() -> None:
    life, _, entry = released()
    assert refusal(life, f"{entry}9")[0] is UndoRefusal.NO_SUCH_ENTRY


def test_what_failed_was_not_done() -> None:
    life = host_with(1)
    (place,) = places(life, [Kind.WRONG_METADATA])
    fault = of(Kind.WRONG_METADATA)
    fault.before(place)
    live(life, 60.0)
    fault.fault(place)
    life.host.unwritable.add(f"metadata {place.name}")
    live(life, 60.0)
    (entry, *_) = [deed.entry.id for deed in join_entries(read_entries(life.host.history))]
    assert refusal(life, entry)[0] is UndoRefusal.NOT_DONE


def test_a_newer_change_of_the_same_container_goes_first() -> None:
    life, place, _, _ = repaired(of(Kind.UNTRACKED_CONTAINER))
    older = done(life)[0].entry.id
    middle = books(life.host)
    life.host.records.pop(place.name)
    without = books(life.host)
    live(life, 60.0)
    newer = done(life)[0].entry.id
    assert newer != older
    why, reason = refusal(life, older)
    assert (why, newer in reason) == (UndoRefusal.NEWER_CHANGE, True)
    assert undo(life, newer).refused is None
    assert books(life.host) == without
    life.host.records[place.name] = middle[1][place.name]
    assert undo(life, older).refused is None
    assert not place.booked()
