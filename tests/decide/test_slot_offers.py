"""What is offered: only what surely can be used; each refusal names its slot and its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.slot_offers import Pool, PoolIndex, SlotRejection
from ds01d.model.allocation import Refusal
from ds01d.model.devices import Inventory
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, UserName, Wall
from tests.support.build import (
    ALWAYS_UNLIMITED,
    books,
    four_slots,
    inventory,
    process,
    slot,
    two_by_two,
    whole,
)

NAME, ALICE, BOB = ContainerName("new._.1001"), UserName("alice"), UserName("bob")
FIRST = SlotId("0.0")
BLIND = replace(two_by_two(), blind={DeviceUuid("MIG-0-0"): "not supported"})


def pool(gpu: Inventory | None = None, **fields: Any) -> Pool:
    defaults: dict[str, Any] = {
        "state": four_slots(),
        "records": {},
        "limits": ALWAYS_UNLIMITED,
        "now": Wall(1_000.0),
    }
    return Pool(gpu=gpu or two_by_two(), **(defaults | fields))


def reject(there: Pool, place: SlotId = FIRST) -> SlotRejection | None:
    return PoolIndex(there).find_rejection(there.state.slots[place], NAME, ALICE)


def test_a_free_slot_is_offered_and_so_is_one_that_is_held() -> None:
    assert reject(pool()) is None
    assert reject(pool(state=four_slots(_0_0="a b"))) is None


@pytest.mark.parametrize(
    ("there", "refusal"),
    [
        (pool(inventory()), Refusal.SLOT_UNUSABLE),
        (pool(whole(2)), Refusal.SLOT_UNUSABLE),
        (
            pool(replace(two_by_two(), blind={DeviceUuid("MIG-0-0"): "not supported"})),
            Refusal.SLOT_UNUSABLE,
        ),
        (pool(replace(two_by_two(), processes=(process("MIG-0-0", None),))), Refusal.SLOT_IN_USE),
        (pool(foreign_users={FIRST: ("jupyter",)}), Refusal.SLOT_IN_USE),
        (
            pool(state=books(replace(slot("0.0"), reserved_for=BOB))),
            Refusal.SLOT_RESERVED,
        ),
    ],
    ids=["no device", "another layout", "blind", "a process", "a stranger", "reserved"],
)
def test_what_may_be_in_use_or_is_not_there_is_not_offered(there: Pool, refusal: Refusal) -> None:
    rejection = reject(there)
    assert rejection is not None
    assert rejection.refusal is refusal
    assert "0" in rejection.reason


def test_a_container_that_uses_it_without_a_booking_may_book_it() -> None:
    assert reject(pool(foreign_users={FIRST: (NAME,)})) is None


def test_a_process_on_a_slot_that_is_held_is_its_holders() -> None:
    busy = replace(two_by_two(), processes=(process("MIG-0-0", "id-a"),))
    assert reject(pool(busy, state=four_slots(_0_0="a"))) is None


@given(st.sets(st.sampled_from(["0.0", "0.1", "1.0", "1.1"])))
def test_one_slot_that_is_refused_refuses_no_other(used: set[str]) -> None:
    there = pool(foreign_users={SlotId(place): ("jupyter",) for place in used})
    refused = {place for place in there.state.slots if reject(there, place) is not None}
    assert refused == used
