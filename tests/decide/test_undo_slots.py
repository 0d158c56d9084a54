"""Slots go back as they were; what others booked since stays, and nothing is booked twice."""

from __future__ import annotations

from dataclasses import replace

from ds01d.decide.undo_choice import UndoRefusal
from ds01d.model.books import AllocatorState
from ds01d.model.drift import Kind, WaitReason
from ds01d.model.primitives import ContainerName, SlotId
from tests.decide.test_diff import host_with, live, places, running
from tests.reconcile.test_undo import books, done, of, refusal, released, repaired, swapped, undo
from tests.support.build import mig


def test_a_slot_table_goes_back_whole_with_its_holders() -> None:
    life = host_with(1)
    (place,) = places(life, [Kind.STALE_SLOT])
    running(place)
    live(life, 300.0)
    before = books(life.host)
    swapped(place)
    live(life, 600.0)
    assert place.booked() == {place.second}
    *_, first, second = (d for d in done(life) if d.entry.kind == Kind.STALE_SLOT)
    undone = undo(life, first.entry.id)
    assert undone.reversal is not None
    assert {e.id for e in undone.reversal.undoes} == {first.entry.id, second.entry.id}
    assert refusal(life, second.entry.id)[0] is UndoRefusal.ALREADY_UNDONE
    reports = live(life, 600.0)
    assert books(life.host) == before
    assert {one.gate for one in reports[-1].drifts} == {WaitReason.UNDONE}
    life.run("MIG-0-0", name=place.name)
    swapped_back = [mig(0, 0), mig(0, 1)]
    life.set_gpu(migs=tuple(swapped_back))
    live(life, 600.0)
    assert not life.plan().drifts
    assert books(life.host) == before


def test_a_slot_that_somebody_else_holds_now() -> None:
    """A newer allocation."""
    life, place, entry = released()
    life.book(place.first, name="newer._.1002")
    why, reason = refusal(life, entry)
    assert why is UndoRefusal.SLOT_HELD
    assert "newer._.1002" in reason


def test_a_name_that_was_booked_anew() -> None:
    life, place, entry = released()
    life.book(place.second, name=place.name)
    assert refusal(life, entry)[0] is UndoRefusal.BOOKS_CHANGED


def test_a_device_that_is_gone() -> None:
    life, place, entry = released()
    gpus = life.host.gpu
    assert gpus is not None
    life.set_gpu(migs=tuple(m for m in gpus.migs if m.uuid != place.uuid))
    assert refusal(life, entry)[0] is UndoRefusal.DEVICE_GONE


def test_a_slot_that_is_gone_or_another_device() -> None:
    life, place, entry = released()
    place.write_slot(place.first, uuid="MIG-other")
    assert refusal(life, entry)[0] is UndoRefusal.DEVICE_GONE
    state = life.host.state
    assert isinstance(state, AllocatorState)
    left = {i: s for i, s in state.slots.items() if i != place.first}
    life.host.state = replace(state, slots=left)
    assert refusal(life, entry)[0] is UndoRefusal.DEVICE_GONE


def test_bookings_that_others_made_since_stay() -> None:
    """A running container's adoption is taken back; who shares its slot by now keeps it."""
    life, place, _, _ = repaired(of(Kind.UNTRACKED_CONTAINER))
    entry = done(life)[0].entry.id
    life.list_in(place.first, name="sharer._.1002")
    assert undo(life, entry).refused is None
    assert place.booked() == set()
    assert place.booked_for(ContainerName("sharer._.1002")) == {place.first}
    state = life.host.state
    assert isinstance(state, AllocatorState)
    assert state.slots[SlotId(place.first)].users == {"alice": 1}
