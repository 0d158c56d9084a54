"""What a sick GPU does not tell is as it was remembered, or it is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.inventory_places import device_positions, inventory_fingerprint
from ds01d.decide.remembered_devices import complete_inventory
from ds01d.model.devices import Inventory
from tests.support.build import gpu, inventory, mig, two_by_two, whole

SICK = "Unknown Error"


def without(gpus: Inventory, *indices: int, identified: bool = False) -> Inventory:
    """The inventory that is left when these GPUs tell nothing, or only which ones they are."""
    remaining = tuple(gpu for gpu in gpus.gpus if identified or gpu.index not in indices)
    migs = tuple(gpu for gpu in gpus.migs if gpu.gpu_index not in indices)
    return replace(gpus, gpus=remaining, migs=migs, incomplete=dict.fromkeys(indices, SICK))


@pytest.mark.parametrize("identified", [False, True])
@pytest.mark.parametrize("before", [two_by_two(), whole(3)], ids=["MIG", "whole"])
def test_its_devices_are_those_of_before_and_blind(before: Inventory, identified: bool) -> None:
    fingerprint = inventory_fingerprint(before)
    full = complete_inventory(without(before, 1, identified=identified), fingerprint)
    assert full.incomplete == {}
    assert inventory_fingerprint(full) == fingerprint, "so nothing is frozen, either"
    its = {uuid for (index, _), uuid in device_positions(before).items() if index == 1}
    assert set(full.blind) == its
    assert all(SICK in reason for reason in full.blind.values())
    assert [gpu.index for gpu in full.gpus] == [gpu.index for gpu in before.gpus]
    if not identified:
        assert full.gpus[1].failed == SICK
        assert full.gpus[1].health == (SICK,)
        assert bool(full.gpus[1].mig) == bool(before.migs)


def test_an_inventory_that_is_complete_stays_as_it_is() -> None:
    sample = two_by_two()
    assert complete_inventory(sample, inventory_fingerprint(whole(2))) is sample


@pytest.mark.parametrize(
    "fingerprint",
    [
        "",
        "what is this; 1 = 2",
        inventory_fingerprint(inventory(gpu(0, uuid="GPU-other"), gpu(1))),
        inventory_fingerprint(whole(3)),
        inventory_fingerprint(whole(1)),
        inventory_fingerprint(inventory(gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-0"))),
    ],
    ids=["nothing", "nonsense", "other GPUs", "more", "fewer", "renumbered"],
)
def test_what_may_be_wrong_is_not_assumed(fingerprint: str) -> None:
    partial = without(two_by_two(), 1)
    assert complete_inventory(partial, fingerprint) is partial


@given(
    sick=st.sets(st.integers(0, 3)),
    cut=st.lists(st.sets(st.integers(0, 3)), min_size=4, max_size=4),
)
def test_whatever_is_sick_the_places_are_those_of_before(
    sick: set[int], cut: list[set[int]]
) -> None:
    before = inventory(
        *(gpu(index, mig=bool(indices)) for index, indices in enumerate(cut)),
        *(mig(index, place) for index, indices in enumerate(cut) for place in sorted(indices)),
    )
    full = complete_inventory(without(before, *sick), inventory_fingerprint(before))
    assert device_positions(full) == device_positions(before)
    assert set(full.blind) == {u for (i, _), u in device_positions(before).items() if i in sick}
