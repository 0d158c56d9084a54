"""Verdicts on containers whose requests are odd: not understood, short, or not to be resolved."""

from __future__ import annotations

import pytest

from ds01d.model.containers import DeviceRef, GpuRequestKind, RefKind, Request, State
from ds01d.model.drift import Outcome
from ds01d.model.holding import Holds, Undecided
from ds01d.model.primitives import DeviceUuid, Source, Unknown
from tests.support.build import HOUR, NAME, Life, config, gpu, inventory, mig

ODD = Request(ask=GpuRequestKind.UNCLEAR, unclear=("GPU:0",))
UNINSPECTED = Unknown(source=Source.DOCKER, reason="inspect timed out")


def by(kind: RefKind, text: str) -> Request:
    return Request(ask=GpuRequestKind.NAMED, devices=(DeviceRef(kind=kind, text=text),))


def short(text: str) -> Request:
    return by(RefKind.SHORT_UUID, text)


def due(life: Life) -> set[tuple[str, str | None]]:
    """The due changes of bookings."""
    return {
        (one.drift.kind.value, one.drift.slot)
        for one in life.plan().drifts
        if one.outcome is Outcome.DUE and one.drift.taken | one.drift.given
    }


@pytest.mark.parametrize("request_", [ODD, short("MIG-1"), short("GPU-9"), by(RefKind.PCI, "9:0")])
@pytest.mark.parametrize("state", [State.EXITED, State.DEAD, State.CREATED])
def test_a_stopped_one_is_released_when_its_hold_ends(request_: Request, state: State) -> None:
    """Its request is not needed for that; alice's hold is 15 minutes."""
    life = Life().book("1.0").run(request=request_).after(0)
    life.change(state=state, finished_ago=0, started=None if state is State.CREATED else 0.0)
    if state is State.CREATED:
        life.change(finished=None, created_ago=0)
    life.after(600.0)
    assert due(life) == set()
    assert due(life.after(600.0)) == {("expired-hold", "1.0")}


@pytest.mark.parametrize("request_", [ODD, short("MIG-1"), short("MIG-9"), by(RefKind.PCI, "9:0")])
def test_a_living_one_keeps_what_is_booked(request_: Request) -> None:
    life = Life().book("1.0").run(request=request_).after(2 * HOUR)
    verdict = life.plan().decision.verdicts[NAME]
    assert isinstance(verdict, Holds)
    assert verdict.slots == {"1.0"}
    assert life.plan().drifts == ()


def test_a_living_one_that_is_not_booked_is_not_adopted() -> None:
    assert Life().run(request=ODD).after(60.0).plan().drifts == ()
    assert Life().run(request=short("MIG-1")).after(60.0).plan().drifts == ()


def test_one_that_could_not_be_inspected_stays_undecided_even_if_it_is_stopped() -> None:
    """Its FinishedAt is not known either: what its metadata says must not end its hold."""
    life = Life().book("1.0", stopped_at_ago=2 * HOUR).run(request=UNINSPECTED).stop(finished=None)
    verdict = life.after(HOUR).plan().decision.verdicts[NAME]
    assert isinstance(verdict, Undecided)
    assert due(life) == set()


@pytest.mark.parametrize(
    "request_", [short("MIG-1-1"), by(RefKind.MIG_INDEX, "1:1")], ids=["short UUID", "slot id"]
)
def test_exactly_one_device_that_fits_is_that_device(request_: Request) -> None:
    life = Life().after(60.0)
    life.start_now(request=request_).after(10.0)
    assert due(life) == {("untracked-container", "1.1")}


def test_a_short_uuid_or_pci_address_is_known_for_one_that_ran_before_ds01d() -> None:
    assert due(Life().run(request=short("MIG-1-1")).after(10.0)) == {("untracked-container", "1.1")}
    life = Life(gpu=inventory(gpu(0, pci="0000:3b:00"), gpu(1, pci="0000:5e:00")))
    life.config = config()
    life.after(300.0)  # the slots of the MIG devices make way for those of whole GPUs
    life.run(request=by(RefKind.PCI, "0000:5e:00.0")).after(30.0)
    assert life.host.bookings() == {(NAME, "1")}


def test_a_name_that_began_to_fit_two_devices_moves_nothing() -> None:
    """What it meant when it was first seen is remembered, as for every other name."""
    life = Life().book("1.1").run(request=short("MIG-1-1")).after(60.0)
    more = mig(1, 2, "MIG-1-12")
    life.host.gpu = inventory(
        gpu(0, mig=True), gpu(1, mig=True), mig(0, 0), mig(0, 1), mig(1, 0), mig(1, 1), more
    )
    life.after(600.0)
    verdict = life.plan().decision.verdicts[NAME]
    assert isinstance(verdict, Holds)
    assert verdict.slots == {"1.1"}
    known = life.plan().decision.checkpoint.resolved
    assert [one.devices for one in known.values()] == [frozenset({DeviceUuid("MIG-1-1")})]


def test_a_short_uuid_that_could_not_be_resolved_at_first_is_later() -> None:
    life = Life().run(request=short("MIG-1-1")).fail(Source.NVML).after(60.0)
    assert due(life) == set()
    life.host.failing.clear()
    assert due(life.after(10.0)) == {("untracked-container", "1.1")}
