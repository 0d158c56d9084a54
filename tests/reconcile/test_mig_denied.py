"""A GPU that had MIG devices and reports that it does not support MIG: unhealthy until it does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ds01d.errors import BooksUnreadable
from ds01d.model.books import AllocatorState
from ds01d.model.devices import Gpu
from ds01d.model.drift import FindingKind, Kind, WaitReason
from ds01d.model.primitives import DeviceUuid
from ds01d.reconcile.sync_slots import sync_slot_table
from tests.support.build import HOUR, NAME, OTHER, Life, books, config, slot, whole

ALL = {"0.0", "0.1", "1.0", "1.1"}


def denying(life: Life, *, mig: bool | None = None) -> Life:
    """From now on GPU 0 names no MIG device."""
    found = life.host.gpu
    assert found is not None
    gpus = (replace(found.gpus[0], mig=mig), *found.gpus[1:])
    return life.set_gpu(gpus=gpus, migs=tuple(one for one in found.migs if one.gpu_index))


def divided() -> Life:
    life = Life(config()).book("0.0").run("MIG-0-0").book("1.0", name=OTHER)
    life.run("MIG-1-0", name=OTHER)
    return life.after(HOUR)


def slots(life: Life) -> set[str]:
    assert isinstance(life.host.state, AllocatorState)
    return {str(one) for one in life.host.state.slots}


def unhealthy(life: Life) -> list[str]:
    found = life.sweep().findings
    return [one.reason for one in found if one.kind is FindingKind.UNHEALTHY_GPU]


def test_its_slots_stay_and_it_is_unhealthy() -> None:
    life = denying(divided()).after(2 * HOUR)
    assert slots(life) == ALL
    assert life.host.bookings() == {(NAME, "0.0"), (OTHER, "1.0")}
    report = life.sweep()
    assert [one.drift.kind for one in report.drifts] == []
    (reason,) = unhealthy(life)
    assert reason.startswith(
        "GPU 0 (GPU-0): reports that it does not support MIG, but had MIG devices"
    )


def test_nothing_on_it_is_released_and_the_other_gpu_goes_on() -> None:
    """Whether anything computes there cannot be seen."""
    life = denying(divided())
    life.remove(told=False).remove(OTHER, told=False).after(HOUR)
    assert life.host.bookings() == {(NAME, "0.0")}
    (held,) = life.sweep().drifts
    assert held.gate is WaitReason.BLOCKED
    assert "reports that it does not support MIG" in held.reason


def test_switched_off_is_another_answer() -> None:
    life = denying(divided(), mig=False).after(HOUR)
    assert slots(life) == ALL - {"0.1"}, "with its holder 0.0 stays, flagged"
    assert unhealthy(life) == []


def test_once_it_says_what_it_has_all_is_well() -> None:
    life = divided()
    healthy = life.host.gpu
    denying(life).after(HOUR)
    life.host.gpu = healthy
    assert life.after(HOUR).sweep().is_consistent
    assert unhealthy(life) == []
    assert slots(life) == ALL


def test_one_that_never_had_mig_is_well() -> None:
    state = books(slot("0"), slot("1"))
    life = Life(config(), gpu=whole(2), state=state).after(HOUR)
    assert unhealthy(life) == []
    assert life.sweep().is_consistent


@pytest.mark.parametrize("what", ["boot", "driver"])
def test_it_is_believed_after_a_boot_and_by_another_driver(what: str) -> None:
    """A display or confidential mode, or an old driver, takes MIG away; nothing else does."""
    life = denying(divided()).after(HOUR)
    if what == "boot":
        life.host.boot_id, life.host.boot = "another", 10.0
    else:
        life.set_gpu(driver="470.1")
    life.after(HOUR)
    assert slots(life) == ALL - {"0.1"}
    assert unhealthy(life) == []


def test_at_another_index_it_is_the_same_gpu() -> None:
    """Then what it has cannot be completed, and the table waits."""
    life = divided()
    found = life.host.gpu
    assert found is not None
    swapped = tuple(
        replace(one, index=1 - one.index, mig=None if one.index == 0 else True)
        for one in reversed(found.gpus)
    )
    migs = tuple(replace(one, gpu_index=0) for one in found.migs if one.gpu_index == 1)
    life.set_gpu(gpus=swapped, migs=migs).after(HOUR)
    assert slots(life) == ALL
    assert life.host.bookings() == {(NAME, "0.0"), (OTHER, "1.0")}
    assert any("GPU 1: reports that it does not support MIG" in one for one in unhealthy(life))


def test_a_gpu_that_was_put_in_its_place_is_believed() -> None:
    life = divided()
    denying(life)
    found = life.host.gpu
    assert found is not None
    other = Gpu(uuid=DeviceUuid("GPU-new"), index=0)
    life.set_gpu(gpus=(other, *found.gpus[1:])).after(HOUR)
    assert slots(life) == ALL - {"0.1"}
    assert all(one.drift.kind is not Kind.VANISHED_SLOT for one in life.sweep().drifts)


def test_the_allocator_gives_no_whole_gpu_away_whose_parts_are_held() -> None:
    life = denying(Life(config()).book("0.0"))
    with pytest.raises(
        BooksUnreadable, match=rf"cannot do MIG, and {re.escape(NAME)} has slot 0.0"
    ):
        sync_slot_table(life.host.world(), life.config)
    assert slots(life) == ALL
    sync_slot_table(denying(life, mig=False).host.world(), life.config)
    assert slots(life) == ALL - {"0.1"}
