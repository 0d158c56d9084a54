"""The slot table follows the devices: their UUIDs, not their indices."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ds01d.decide.inventory_places import inventory_fingerprint
from ds01d.decide.slot_table import SlotTable, WholeGpus, follow_devices, keep_table
from ds01d.model.books import AllocatorState, SlotType
from ds01d.model.devices import Inventory
from ds01d.model.drift import Kind, Outcome, WaitReason
from ds01d.model.primitives import DeviceUuid, SlotId, Source, Unknown
from tests.support.build import (
    HOUR,
    NAME,
    OTHER,
    Life,
    books,
    config,
    four_slots,
    gpu,
    inventory,
    mig,
    slot,
    two_by_two,
    whole,
)

REMEMBERED = {SlotId("0"): DeviceUuid("GPU-0"), SlotId("1"): DeviceUuid("GPU-1")}


def follow(
    state: AllocatorState,
    gpus: Inventory,
    remembered: Mapping[SlotId, DeviceUuid] | None = None,
    whole_gpus: WholeGpus = "without-mig",
) -> SlotTable:
    return follow_devices(state, gpus, remembered=remembered or {}, whole_gpus=whole_gpus)


def shown(table: SlotTable) -> dict[str, tuple[str | None, str]]:
    """Slot → UUID in the file, holders."""
    return {s.id: (s.uuid, " ".join(s.containers)) for s in table.slots.values()}


def named(table: SlotTable) -> list[tuple[Kind, str | None]]:
    return [(drift.kind, drift.slot) for drift in table.drifts]


def swapped() -> Inventory:
    """The MIG devices of GPU 1 have changed places."""
    return inventory(
        gpu(0, mig=True),
        gpu(1, mig=True),
        *(mig(0, 0), mig(0, 1)),
        *(mig(1, 0, "MIG-1-1"), mig(1, 1, "MIG-1-0")),
    )


# --- nothing to do ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "gpus"),
    [
        pytest.param(four_slots(_1_0=NAME), two_by_two(), id="MIG"),
        pytest.param(books(slot("0", NAME), slot("1")), whole(2), id="whole GPUs"),
        pytest.param(
            books(*(slot(p, uuid=None) for p in ("0:0", "0:1", "1:0", "1:1"))),
            two_by_two(),
            id="the oldest format: other ids, no UUIDs",
        ),
        pytest.param(
            books(*(slot(p, uuid=None) for p in ("0.0", "0.1", "1.0", "1.1"))),
            two_by_two(),
            id="no UUIDs",
        ),
    ],
)
def test_a_table_that_is_right_stays_as_it_is(state: AllocatorState, gpus: Inventory) -> None:
    table = follow(state, gpus)
    assert table.drifts == ()
    assert table.slots == state.slots
    assert list(table.slots) == list(state.slots)
    assert set(table.slot_of) == {*table.device_of.values()}


def test_ids_are_kept_in_the_order_of_the_file() -> None:
    state = books(slot("1.1"), slot("0.0"), slot("1.0"), slot("0.1"))
    assert list(follow(state, two_by_two()).slots) == ["1.1", "0.0", "1.0", "0.1"]


# --- renumbered -------------------------------------------------------------------------------


def test_holders_go_where_their_device_goes() -> None:
    table = follow(four_slots(_1_0=NAME, _1_1=OTHER), swapped())
    assert shown(table)["1.0"] == ("MIG-1-1", OTHER)
    assert shown(table)["1.1"] == ("MIG-1-0", NAME)
    assert table.moved == {"1.0": "1.1", "1.1": "1.0"}
    assert {kind for kind, _ in named(table)} == {Kind.STALE_SLOT}
    assert table.dead == {}


def test_the_rest_of_a_slot_goes_along() -> None:
    state = books(slot("1.0", NAME, users={"bob": 1}, profile="3g.40gb"), slot("1.1"))
    moved = follow(state, swapped()).slots[SlotId("1.1")]
    assert (moved.users, moved.gpu_index, moved.mig_index) == ({"bob": 1}, 1, 1)


def test_whole_gpus_that_changed_places_are_known_by_what_is_remembered() -> None:
    """The file has no UUID for a whole GPU."""
    gpus = inventory(gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-0"))
    table = follow(books(slot("0", NAME), slot("1")), gpus, REMEMBERED)
    assert shown(table) == {"0": (None, ""), "1": (None, NAME)}
    assert table.slot_of == {"GPU-1": "0", "GPU-0": "1"}


def test_without_a_memory_they_are_known_by_their_place() -> None:
    gpus = inventory(gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-0"))
    table = follow(books(slot("0", NAME), slot("1")), gpus)
    assert shown(table) == {"0": (None, NAME), "1": (None, "")}
    assert table.drifts == ()


def test_slots_without_uuids_follow_what_is_remembered() -> None:
    state = books(*(slot(p, uuid=None) for p in ("1:0", "1:1")), slot("0.0"), slot("0.1"))
    remembered = {SlotId("1:0"): DeviceUuid("MIG-1-0"), SlotId("1:1"): DeviceUuid("MIG-1-1")}
    table = follow(state, swapped(), remembered)
    assert table.slot_of[DeviceUuid("MIG-1-0")] == "1.1"
    assert table.slots[SlotId("1.1")].uuid is None


# --- created anew -----------------------------------------------------------------------------


def anew() -> Inventory:
    return inventory(
        gpu(0, mig=True),
        gpu(1, mig=True),
        *(mig(0, 0), mig(0, 1)),
        *(mig(1, 0, "MIG-new-0"), mig(1, 1, "MIG-new-1")),
    )


def test_a_dead_uuid_on_a_used_place_is_refreshed_and_its_holders_are_flagged() -> None:
    table = follow(four_slots(_1_0=NAME), anew())
    assert shown(table)["1.0"] == ("MIG-new-0", NAME)
    assert shown(table)["1.1"] == ("MIG-new-1", "")
    assert list(table.dead) == ["1.0"]
    assert "MIG-1-0 is gone, MIG-new-0 is in its place" in table.dead[SlotId("1.0")]


def test_a_changed_profile_is_refreshed_too() -> None:
    state = books(slot("1.0", NAME, profile="7g.80gb"), slot("1.1"), slot("0.0"), slot("0.1"))
    table = follow(state, two_by_two())
    assert named(table) == [(Kind.STALE_SLOT, "1.0")]
    assert table.slots[SlotId("1.0")].profile == "1g.10gb"
    assert table.dead == {}


def test_holders_of_a_dead_device_share_the_slot_of_one_that_moved_into_its_place() -> None:
    gpus = inventory(gpu(1, mig=True), mig(1, 0, "MIG-1-1"))
    table = follow(books(slot("1.0", NAME), slot("1.1", OTHER)), gpus)
    assert shown(table) == {"1.0": ("MIG-1-1", f"{OTHER} {NAME}")}
    assert SlotId("1.0") in table.dead


# --- fewer and more ---------------------------------------------------------------------------


def test_an_empty_slot_of_a_vanished_device_goes() -> None:
    gpus = inventory(gpu(0, mig=True), gpu(1, mig=True), mig(0, 0), mig(0, 1), mig(1, 0))
    table = follow(four_slots(), gpus)
    assert list(table.slots) == ["0.0", "0.1", "1.0"]
    assert named(table) == [(Kind.VANISHED_SLOT, "1.1")]


def test_one_that_has_a_holder_stays_and_is_flagged() -> None:
    gpus = inventory(gpu(0, mig=True), gpu(1, mig=True), mig(0, 0), mig(0, 1), mig(1, 0))
    state = four_slots(_1_1=NAME)
    table = follow(state, gpus)
    assert table.slots == state.slots
    assert table.drifts == ()
    assert table.dead == {"1.1": "MIG-1-1 is gone"}
    assert SlotId("1.1") not in table.device_of


def test_a_new_device_gets_a_slot() -> None:
    table = follow(books(slot("0.0"), slot("0.1"), slot("1.0")), two_by_two())
    new = table.slots[SlotId("1.1")]
    assert (new.type, new.uuid, new.profile, new.containers, new.users) == (
        SlotType.MIG,
        "MIG-1-1",
        "1g.10gb",
        (),
        {},
    )
    assert list(table.slots) == ["0.0", "0.1", "1.0", "1.1"]


def test_a_new_whole_gpu_gets_a_slot() -> None:
    table = follow(books(slot("0")), whole(2))
    assert table.slots[SlotId("1")] == slot("1")


# --- whole GPUs and MIG -----------------------------------------------------------------------


def mixed() -> Inventory:
    """GPU 0 is whole, GPU 1 is cut in two."""
    return inventory(gpu(0), gpu(1, mig=True), mig(1, 0), mig(1, 1))


def test_a_gpu_that_was_cut_loses_its_empty_slot_to_its_parts() -> None:
    table = follow(books(slot("0"), slot("1")), mixed(), REMEMBERED, "always")
    assert list(table.slots) == ["0", "1.0", "1.1"]
    assert table.mig_enabled


def test_a_whole_gpu_beside_mig_devices_is_not_listed_by_default() -> None:
    table = follow(books(slot("0"), slot("1.0"), slot("1.1")), mixed(), REMEMBERED)
    assert list(table.slots) == ["1.0", "1.1"]


def test_it_stays_while_it_has_a_holder() -> None:
    state = books(slot("0", NAME), slot("1.0"), slot("1.1"))
    table = follow(state, mixed(), REMEMBERED)
    assert table.slots == state.slots
    assert (table.drifts, table.dead) == ((), {})
    assert table.slot_of[DeviceUuid("GPU-0")] == "0"


def test_it_is_listed_where_that_is_wanted() -> None:
    table = follow(books(slot("1.0"), slot("1.1")), mixed(), {}, "always")
    assert list(table.slots) == ["0", "1.0", "1.1"]


def test_a_cut_gpu_whose_slot_has_a_holder_stays_and_is_flagged() -> None:
    table = follow(books(slot("0"), slot("1", NAME)), mixed(), REMEMBERED, "always")
    assert shown(table)["1"] == (None, NAME)
    assert table.dead == {"1": "GPU-1 is divided into MIG devices now"}


def test_a_gpu_in_mig_mode_without_devices_is_not_handed_out() -> None:
    table = follow(books(slot("0")), inventory(gpu(0), gpu(1, mig=True)), REMEMBERED)
    assert list(table.slots) == ["0"]


def test_a_gpu_that_is_whole_again_gets_its_slot_back() -> None:
    table = follow(books(slot("0"), slot("1.0"), slot("1.1")), whole(2), REMEMBERED)
    assert list(table.slots) == ["0", "1"]
    assert not table.mig_enabled


# --- what is not believed, and what may not move yet -------------------------------------------


@pytest.mark.parametrize(
    "gpus", [None, Unknown(source=Source.NVML, reason="hangs"), swapped()], ids=str
)
def test_as_it_is_touches_nothing(gpus: Inventory | Unknown | None) -> None:
    state = four_slots(_1_0=NAME)
    table = keep_table(state, gpus, {})
    assert (table.slots, table.drifts, table.moved) == (state.slots, (), {})
    assert table.device_of[SlotId("1.0")] == "MIG-1-0"


def test_without_nvml_a_slot_is_a_device_of_its_own() -> None:
    table = keep_table(books(slot("0"), slot("1")), None, {})
    assert table.slot_of == {"slot:0": "0", "slot:1": "1"}


def test_the_fingerprint_tells_places_and_devices() -> None:
    prints = {inventory_fingerprint(g) for g in (two_by_two(), swapped(), anew(), whole(2))}
    assert len(prints) == 4
    reordered = inventory(*reversed(two_by_two().gpus), *reversed(two_by_two().migs))
    assert inventory_fingerprint(reordered) == inventory_fingerprint(two_by_two())


def test_a_changed_layout_is_frozen_and_then_the_holders_have_moved_with_their_devices() -> None:
    life = Life(config()).book("1.0").run("MIG-1-0").after(HOUR)
    life.host.gpu = swapped()
    first = life.sweep()
    assert {g.gate for g in first.drifts} == {WaitReason.INVENTORY}
    assert life.host.bookings() == {(NAME, "1.0")}
    life.after(60.0)
    assert life.host.bookings() == {(NAME, "1.0")}
    life.host.pass_time(60.0)
    last = life.sweep()
    assert {(g.drift.kind, g.outcome) for g in last.drifts} == {
        (Kind.STALE_SLOT, Outcome.DONE),
        (Kind.WRONG_METADATA, Outcome.WAITING),  # it names the old id
    }
    assert life.host.bookings() == {(NAME, "1.1")}
    life.after(60.0)
    assert not life.sweep().drifts


def test_a_layout_that_keeps_changing_stays_frozen() -> None:
    life = Life(config()).book("1.0").run("MIG-1-0").after(HOUR)
    for gpus in (swapped(), two_by_two(), swapped(), two_by_two()):
        life.host.gpu = gpus
        life.after(100.0)
    assert life.host.bookings() == {(NAME, "1.0")}


def test_release_is_frozen_while_the_layout_is() -> None:
    life = Life(config()).book("1.0").run("MIG-1-0").after(HOUR)
    life.host.gpu = swapped()
    life.remove().after(60.0)
    assert life.host.bookings() == {(NAME, "1.0")}
    life.after(120.0)
    assert life.host.bookings() == set()
