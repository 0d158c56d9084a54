"""A change seen from its undo: all that was written as one, turned round."""

from __future__ import annotations

import pytest

from ds01d.decide.undo_states import describe_slot, gather_change, has_device, restrict_state
from ds01d.model.history import BooksState, Entry, HistoryEntry, Phase, SlotRecord
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId
from tests.support.build import books, slot, two_by_two, whole

A, B, SLOT = ContainerName("a"), ContainerName("b"), SlotId("1.0")


def make_record(*containers: str, text: str = "") -> SlotRecord:
    return SlotRecord(containers=containers, users={}, text=text, device=DeviceUuid("MIG-1-0"))


def make_entry(container: ContainerName, **fields: object) -> HistoryEntry:
    entry = Entry(id=f"of-{container}", at="", phase=Phase.BEGIN, container=container, **fields)  # type: ignore[arg-type]
    return HistoryEntry(entry=entry, closed=Phase.DONE)


def test_what_was_given_is_taken_and_what_was_taken_is_given() -> None:
    change = gather_change([make_entry(A, taken=((A, SLOT),), given=((B, SLOT),)), make_entry(B)])
    assert change.taken == {(B, SLOT)}
    assert change.given == {(A, SLOT)}
    assert change.names == {A, B}


def test_the_sides_of_all_entries_are_one_and_the_whole_text_of_a_slot_counts_most() -> None:
    first = BooksState(slots={"1.0": make_record("a")}, metadata={"a": "x"})
    second = BooksState(slots={"1.0": make_record("a", text="{}"), "1.1": None}, mig_enabled=True)
    for sides in ((first, second), (second, first)):
        change = gather_change([make_entry(A, before=side) for side in sides])
        assert change.before.slots == {"1.0": make_record("a", text="{}"), "1.1": None}
        assert dict(change.before.metadata) == {"a": "x"}
        assert change.before.mig_enabled is True
        assert change.after == BooksState()


def test_a_state_is_restricted_to_the_slots_of_a_change_with_their_devices() -> None:
    state = books(slot("1.0", "b"), slot("1.1"))
    like = BooksState(slots={"1.0": make_record("a")})
    side = restrict_state(state, [SLOT, SlotId("9.9")], like, {})
    restricted = side.slots["1.0"]
    assert restricted is not None
    assert (restricted.containers, restricted.device) == (("b",), "MIG-1-0")
    assert side.slots["9.9"] is None
    assert side.mig_enabled is None, "part of a change of the table only"


@pytest.mark.parametrize(("place", "uuid"), [("1.0", "MIG-1-0"), ("1.0", None)])
def test_a_slot_has_a_device_by_its_uuid_or_else_by_its_place(place: str, uuid: str | None) -> None:
    there = slot(place, uuid=uuid)
    assert has_device(there, two_by_two())
    assert not has_device(there, whole(2))


def test_a_slot_is_described_as_it_is() -> None:
    assert describe_slot(None) == "it is not there"
    assert describe_slot(slot("1.0", "a", uuid=None)) == "it has a, no UUID"
