"""`sync`: the slot table follows NVML at once, and no booking is lost by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.config import Config
from ds01d.errors import BooksUnreadable
from ds01d.model.books import MISSING, AllocatorState, Record, Unreadable
from ds01d.model.devices import Inventory
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source
from ds01d.reconcile.sync_slots import sync_slot_table
from tests.support.build import (
    NAME,
    books,
    four_slots,
    gpu,
    inventory,
    mig,
    record,
    slot,
    two_by_two,
)
from tests.support.world import Host

TRAIN = ContainerName(NAME)


def swapped() -> Inventory:
    """The MIG devices of GPU 1 changed places."""
    there = two_by_two()
    first, second = (part for part in there.migs if part.gpu_index == 1)
    moved = (replace(first, index=second.index), replace(second, index=first.index))
    return replace(there, migs=(*(part for part in there.migs if part.gpu_index == 0), *moved))


def test_holders_and_their_records_go_with_the_device() -> None:
    host = Host(gpu=swapped(), state=four_slots(_1_0=NAME), records={TRAIN: record()})
    drifts, warnings = sync_slot_table(host.world(), Config())
    assert (len(drifts), warnings) == (2, ())
    assert host.bookings() == {(NAME, "1.1")}
    moved = host.records[TRAIN]
    assert isinstance(moved, Record)
    assert moved.gpu_id == "1.1"
    assert sync_slot_table(host.world(), Config()) == ((), ()), "a second time changes nothing"


def test_a_new_host_gets_its_first_state() -> None:
    host = Host(gpu=two_by_two(), state=Unreadable(reason="there is none", digest=Digest(MISSING)))
    sync_slot_table(host.world(), Config())
    assert isinstance(host.state, AllocatorState)
    assert sorted(host.state.slots) == ["0.0", "0.1", "1.0", "1.1"]


@pytest.mark.parametrize("lost", ["records", "copy"])
def test_a_state_that_was_lost_is_not_begun_anew(lost: str) -> None:
    copy = four_slots(_1_0=NAME) if lost == "copy" else None
    gone = Unreadable(reason="there is none", digest=Digest(MISSING), last_good=copy)
    host = Host(gpu=two_by_two(), state=gone)
    if lost == "records":
        host.records[TRAIN] = record()
    with pytest.raises(BooksUnreadable, match="ds01d rebuilds it"):
        sync_slot_table(host.world(), Config())
    assert host.state is gone


def test_without_nvml_on_purpose_there_is_nothing_to_follow() -> None:
    assert sync_slot_table(Host(gpu=None, state=four_slots()).world(), Config()) == ((), ())


@pytest.mark.parametrize(
    ("gpus", "failing", "reason"),
    [
        (two_by_two(), {Source.NVML}, "nvml does not answer"),
        (inventory(), set(), "no GPU at all"),
        (replace(two_by_two(), incomplete={1: "is lost"}), set(), "GPU 1: is lost"),
        (inventory(gpu(0, mig=True), mig(0, 0), gpu(1, mig=None)), set(), "cannot do MIG"),
    ],
    ids=["fails", "none", "one is incomplete", "one denies MIG"],
)
def test_what_is_not_known_for_sure_changes_nothing(
    gpus: Inventory, failing: set[Source], reason: str
) -> None:
    host = Host(gpu=gpus, state=books(slot("1.0", NAME)), failing=failing)
    with pytest.raises(BooksUnreadable, match=reason):
        sync_slot_table(host.world(), Config())
    assert host.bookings() == {(NAME, SlotId("1.0"))}
