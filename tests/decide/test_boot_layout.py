"""What may be booked soon after a boot, while devices that were there before it are missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.allocation import choose_slot
from ds01d.decide.boot_layout import find_partial_layout
from ds01d.decide.inventory_places import device_positions, inventory_fingerprint
from ds01d.decide.slot_offers import Pool
from ds01d.model.allocation import Allocated, AllocationRequest, Rejected
from ds01d.model.books import AllocatorState
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Boot, ContainerName, DeviceUuid, Now, SlotId, UserName, Wall
from tests.support.build import (
    ALWAYS_UNLIMITED,
    books,
    four_slots,
    gpu,
    inventory,
    mig,
    slot,
    two_by_two,
    whole,
)

GRACE_S = 900.0
MIXED = inventory(gpu(0), gpu(1, mig=True), mig(1, 0), mig(1, 1))
ONE_BACK = inventory(gpu(0), gpu(1, mig=True), mig(1, 0))
WHOLE = books(slot("0"), slot("1"))


def answer(
    state: AllocatorState,
    gpu: Inventory,
    before: Inventory | None,
    wanted: str | None = None,
    *,
    boot: float = 60.0,
) -> str:
    """The slot that is given, or the refusal. `before`: the devices that ds01d knew last."""
    now = Now(wall=Wall(0.0), boot=Boot(boot), boot_id="b")
    fingerprint = "" if before is None else inventory_fingerprint(before)
    pool = Pool(
        state=state,
        records={},
        gpu=gpu,
        limits=ALWAYS_UNLIMITED,
        now=now.wall,
        whole_gpus="always",
        partial=find_partial_layout(gpu, state, fingerprint, now, boot_grace_s=GRACE_S),
    )
    wish = AllocationRequest(
        container=ContainerName("new._.1001"),
        user=UserName("alice"),
        max_slots=None,
        priority=0,
        slot=None if wanted is None else SlotId(wanted),
    )
    given = choose_slot(wish, pool)
    if isinstance(given, Allocated):
        return given.slot
    assert isinstance(given, Rejected)
    return given.reason


@pytest.mark.parametrize(
    ("state", "gpu", "before", "wanted", "expected"),
    [
        pytest.param(
            four_slots(), inventory(gpu(0), gpu(1, mig=True), mig(1, 1)), None, None, "1.1",
            id="a listed MIG device is that device, whatever is missing beside it",
        ),
        pytest.param(
            four_slots(), whole(2), None, "1.0", "SLOT_UNUSABLE (1.0 was MIG-1-0, which is gone)",
            id="a MIG device that is not there",
        ),
        pytest.param(
            WHOLE, whole(2), MIXED, "1", "SLOT_UNUSABLE (which device 1 is cannot be known: 2 of 4",
            id="a GPU whose MIG devices are missing is not free as a whole",
        ),
        pytest.param(WHOLE, whole(2), MIXED, None, "0", id="one that had none is"),
        pytest.param(
            books(slot("1.0", uuid=None), slot("1.1", uuid=None)), ONE_BACK, None, "1.0",
            "SLOT_UNUSABLE (which device 1.0 is cannot be known: 1 of 3",
            id="the oldest format has no UUID: its places count once all are there",
        ),
        pytest.param(
            books(slot("1.0", uuid=None), slot("1.1", uuid=None)), ONE_BACK, MIXED, "1.0", "1.0",
            id="or where the device in that place is known to be the same",
        ),
        pytest.param(
            books(slot("0"), slot("1"), slot("2")), inventory(gpu(0), gpu(1, uuid="GPU-2")),
            whole(3), "1", "SLOT_UNUSABLE (which device 1 is cannot be known: 1 of 3",
            id="another GPU has moved up into the index of one that is missing",
        ),
        pytest.param(
            books(slot("0"), slot("1"), slot("2")), inventory(gpu(0), gpu(1, uuid="GPU-2")),
            whole(3), None, "0", id="one that is where it was",
        ),
        pytest.param(
            books(slot("0"), slot("1"), slot("2")), whole(2), None, "0",
            "SLOT_UNUSABLE (which device 0 is cannot be known: 1 of 3",
            id="nobody knows which GPUs these are: only the table tells how many there were",
        ),
        pytest.param(
            WHOLE, inventory(gpu(0), incomplete={1: "it is sick"}), whole(2), "0", "0",
            id="a GPU that is known to be sick is not missing",
        ),
    ],
)  # fmt: skip
def test_what_is_handed_out(
    state: AllocatorState,
    gpu: Inventory,
    before: Inventory | None,
    wanted: str | None,
    expected: str,
) -> None:
    assert answer(state, gpu, before, wanted).startswith(expected)


def test_none_is_free_and_it_is_said_why_and_for_how_long() -> None:
    assert answer(four_slots(), whole(2), two_by_two()) == (
        "NO_GPU_AVAILABLE (4 slots: 4 unusable; 4 of 6 devices are not listed yet, 60 s after boot:"
        " the MIG layout may still be restored; try again, in 840 s at the latest)"
    )


@pytest.mark.parametrize("before", [None, MIXED])
def test_after_the_grace_what_is_there_is_all_there_is(before: Inventory | None) -> None:
    assert answer(WHOLE, whole(2), before, "1", boot=GRACE_S) == "1"


def test_a_layout_that_is_back_needs_no_wait() -> None:
    assert answer(four_slots(), two_by_two(), two_by_two(), boot=1.0) == "0.0"


LAYOUTS = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(
    lambda parts: inventory(
        *(gpu(index, mig=count > 0) for index, count in enumerate(parts)),
        *(mig(index, part) for index, count in enumerate(parts) for part in range(count)),
    )
)


@given(before=LAYOUTS, now=LAYOUTS)
def test_what_is_handed_out_is_what_it_was_before_the_boot(
    before: Inventory, now: Inventory
) -> None:
    """By any table: the device of a settled place was there before, and nothing of it is missing.

    Unless nothing is missing at all: then what is there is the layout.
    """
    clock = Now(wall=Wall(0.0), boot=Boot(1.0), boot_id="b")
    table = books(slot("0"), slot("1"), slot("2"))
    partial = find_partial_layout(
        now, table, inventory_fingerprint(before), clock, boot_grace_s=GRACE_S
    )
    there, was = device_positions(now), device_positions(before)
    if partial is None:
        assert was.keys() <= there.keys()
        return
    gone: set[DeviceUuid] = set(was.values()) - set(there.values())
    assert gone
    parts = {one.gpu for one in before.migs if one.uuid in gone}
    for place in there:
        if place[1] is None and partial.is_settled(place):
            assert there[place] not in parts
