"""Invariant 1 for processes: a list that cannot be read is unknown, and never an empty one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.slot_processes import index_processes
from ds01d.decide.slot_table import keep_table
from ds01d.model.devices import Inventory
from ds01d.model.primitives import DeviceUuid, SlotId, Source, Unknown
from tests.support.build import books, container, four_slots, process, slot, two_by_two, whole

FAILED = Unknown(source=Source.NVML, reason="timed out")
MIG = DeviceUuid("MIG-1-0")


def find(gpu: Inventory | Unknown | None, place: str = "1.0") -> object:
    table = keep_table(four_slots(), gpu, {})
    return index_processes(gpu, table).find_processes(SlotId(place))


def test_a_process_is_found_on_the_slot_of_its_device_and_on_no_other() -> None:
    used = replace(two_by_two(), processes=(process(MIG, "id-a"),))
    assert find(used) == used.processes
    assert find(used, "1.1") == ()


def test_whoever_uses_a_mig_device_uses_its_gpu() -> None:
    gpus = replace(two_by_two(), processes=(process(MIG, "id-a"),))
    index = index_processes(gpus, keep_table(books(slot("1")), gpus, {}))
    assert index.find_processes(SlotId("1")) == gpus.processes
    assert index.find_computing_devices(container(id="id-a")) == {MIG}
    assert index.find_computing_devices(container(id="id-b")) == frozenset()


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [
        (FAILED, "timed out"),
        (replace(two_by_two(), blind={MIG: "not supported"}), "not supported"),
        (replace(whole(1), incomplete={1: "is lost"}), "GPU 1: is lost"),
    ],
    ids=["NVML", "a blind device", "a GPU that may have the device"],
)
def test_a_list_that_cannot_be_read_is_unknown(gpu: Inventory | Unknown, reason: str) -> None:
    answer = find(gpu)
    assert isinstance(answer, Unknown)
    assert reason in answer.reason


def test_without_nvml_nothing_runs_anywhere_as_far_as_can_be_known() -> None:
    assert find(None) is None


def test_decision_151_a_device_that_is_listed_no_more_has_nobody_and_no_list() -> None:
    gpus = whole(2)
    state = books(slot("1.0", uuid=MIG))
    index = index_processes(gpus, keep_table(state, gpus, {}))
    assert index.find_processes(SlotId("1.0")) == ()
    assert not index.has_process_list(SlotId("1.0"))
