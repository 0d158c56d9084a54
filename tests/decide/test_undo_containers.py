"""An undo is refused where a container of the change is another one now, or lives."""

from __future__ import annotations

from ds01d.decide.undo_choice import UndoRefusal
from ds01d.model.containers import EngineIdentity
from ds01d.model.drift import Kind
from tests.reconcile.test_undo import done, of, refusal, released, repaired, undo


def test_a_container_that_was_created_anew() -> None:
    life, place, entry = released()
    life.run(place.uuid, name=place.name, labels={})
    why, reason = refusal(life, entry)
    assert why is UndoRefusal.CONTAINER_CHANGED
    assert "was recreated" in reason


def test_a_container_that_is_gone_needs_no_booking() -> None:
    life, place, _, _ = repaired(of(Kind.EXPIRED_HOLD))
    entry = done(life)[0].entry.id
    life.remove(place.name)
    assert refusal(life, entry)[0] is UndoRefusal.CONTAINER_CHANGED


def test_who_lives_by_now_loses_nothing_by_it() -> None:
    """An expired hold, taken back; the container starts; then that undo is to be undone."""
    life, place, _, _ = repaired(of(Kind.EXPIRED_HOLD))
    first = undo(life, done(life)[0].entry.id).entry
    life.start_now(place.uuid, name=place.name, id=f"id-{place.name}", created=1.0)
    why, reason = refusal(life, first)
    assert why is UndoRefusal.CONTAINER_CHANGED
    assert "lives now" in reason


def test_another_engine_knows_nothing_of_these_containers() -> None:
    life, _, entry = released()
    life.host.identity = EngineIdentity(id="OTHER", root_dir="/mnt", inode=1, device=1)
    assert refusal(life, entry)[0] is UndoRefusal.OTHER_ENGINE
