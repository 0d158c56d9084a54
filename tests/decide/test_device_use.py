"""What the holder of a slot does with it: each reading and its verdict; unknown is none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ds01d.decide.decision import decide
from ds01d.decide.device_use import find_mig_weight, find_use
from ds01d.model.accounting import SlotUse
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import State
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, Unknown
from ds01d.reconcile.observe import observe_host
from tests.support.build import NAME, Life, books, gpu, slot, whole

WHOSE = Unknown(source=Source.NVML, reason="cannot tell whose")


def on_mig() -> Life:
    return Life().book("1.0").run("MIG-1-0")


def on_gpu(utilization: int | None = 40) -> Life:
    devices = replace(whole(2), gpus=(gpu(0), gpu(1, utilization=utilization)))
    slots = books(slot("0"), slot("1"))
    return Life(gpu=devices, state=slots).book("1").run("GPU-1")


def use(life: Life, place: str) -> SlotUse | None:
    snapshot = observe_host(life.host.world(), Checkpoint(), life.config, None)
    index = decide(snapshot, Checkpoint(), life.config).index
    assert index is not None
    return find_use(ContainerName(NAME), SlotId(place), index)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda one: one.use("MIG-1-0", f"id-{NAME}"), SlotUse.USED),
        (lambda one: one, SlotUse.IDLE),
        (lambda one: one.use("MIG-1-0", "another"), SlotUse.IDLE),
        (lambda one: one.use("MIG-1-0", None), None),
        (lambda one: one.use("MIG-1-0", WHOSE), None),
        (lambda one: one.use("MIG-0-0", f"id-{NAME}"), SlotUse.IDLE),
        (lambda one: one.set_gpu(blind={DeviceUuid("MIG-1-0"): "lost"}), None),
        (lambda one: one.fail(Source.NVML), None),
        (lambda one: one.use("MIG-1-0", f"id-{NAME}").fail(Source.DOCKER), None),
        (lambda one: one.change(state=State.PAUSED), SlotUse.IDLE),
        (lambda one: one.stop(started_ago=60.0), SlotUse.RETAINED),
        (lambda one: one.stop(started_ago=60.0).fail(Source.NVML), SlotUse.RETAINED),
        (lambda one: one.stop(started_ago=60.0).use("MIG-1-0", f"id-{NAME}"), SlotUse.USED),
        (lambda one: one.change(state=State.CREATED, started=None), SlotUse.IDLE),
        (lambda one: one.remove(), SlotUse.IDLE),
        (lambda one: one.remove().use("MIG-1-0", WHOSE), None),
    ],
    ids=[
        "MIG has no utilization: its process counts",
        "no process",
        "process of another",
        "process of the host: its clients by MPS are not listed",
        "process of nobody known",
        "process elsewhere",
        "blind",
        "no NVML",
        "no Docker",
        "paused",
        "stopped",
        "stopped, no NVML",
        "stopped and alive",
        "never started",
        "reserved",
        "reserved, process of nobody known",
    ],
)
def test_of_a_mig_device(change: Callable[[Life], Life], expected: SlotUse | None) -> None:
    assert use(change(on_mig()), "1.0") is expected


@pytest.mark.parametrize(
    ("utilization", "expected"),
    [(0, SlotUse.IDLE), (1, SlotUse.USED), (100, SlotUse.USED), (None, None)],
)
def test_of_a_gpu_its_utilization_counts_too(
    utilization: int | None, expected: SlotUse | None
) -> None:
    busy = on_gpu(utilization).use("GPU-1", f"id-{NAME}")
    assert use(busy, "1") is expected
    # Whose work that is, nobody knows where no process is listed.
    unused = None if utilization else SlotUse.IDLE
    assert use(on_gpu(utilization), "1") is unused
    assert use(on_gpu(utilization).use("GPU-1", "another"), "1") is SlotUse.IDLE


@pytest.mark.parametrize(
    ("profile", "gpus"),
    [
        ("1g.5gb", 1 / 7),
        ("2g.10gb", 2 / 7),
        ("1g.10gb+me", 1 / 7),
        ("1c.3g.20gb", 1 / 7),
        ("7g.40gb", 1.0),
        ("", None),
        (None, None),
        ("huge", None),
        ("9g.1gb", None),
    ],
)
def test_a_mig_device_weighs_its_part_of_the_gpu(profile: str | None, gpus: float | None) -> None:
    assert find_mig_weight(profile).gpus == (None if gpus is None else pytest.approx(gpus))
