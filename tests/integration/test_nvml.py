"""GPUs and MIG devices that fail, hang, move, come and go: nothing that lives loses its booking.

The real pynvml over the simulated library, in the real NVML process; the engine is a fake one. Who
asks for a device by UUID, by index, by count and by `all` lives on every host here, beside stopped
ones within their hold and one that is really gone, which shows when releases go on.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ds01d.adapters.host.device_cgroups import HIERARCHY
from ds01d.config_values import Seconds
from ds01d.model.drift import FindingKind, WaitReason
from ds01d.model.primitives import Source
from ds01d.reconcile.report import Report
from simulation import nvml
from simulation.engine import PrivateEngine
from simulation.nvml import SimGpu, SimMig, World, full, prod4
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.fixtures import NvmlWorld
from tests.support.simulated_host import SimulatedHost, released, told

GONE = "gone._.1010"
SETTLE_S, FREEZE_S, GRACE_S = 5.0, 120.0, 120.0

# In steps of less than twice the absence grace: a longer one counts as a gap in Docker's answers.
LONG = (10.0, 121.0, 6.0, 200.0)
"""Long enough for every grace, and for a freeze in front of it."""

BEFORE: Mapping[str, str] = {
    "by-uuid._.1001": "1.0",
    "by-index._.1002": "1.1",
    "stopped._.1003": "1.2",
    "by-count._.1004": "2.0",
    "by-all._.1005": "2.1",
    "paused._.1006": "2.2",
    "created._.1007": "3.0",
    "whole._.1008": "0",
    "whole-uuid._.1009": "0",
}
"""Who lives on the host, and where."""


def populate(host: SimulatedHost, gone: str = "3.1") -> None:
    """Book everybody, and start them under the eyes of ds01d.

    The one that is gone is booked in the slot `gone` and has been absent for half its grace.
    """
    settle_down(host, BEFORE, gone)
    slots = host.world.slots()
    host.run("by-uuid._.1001", slots["1.0"], ago_s=0)
    host.run("by-index._.1002", "1:1", ago_s=0)
    host.run("stopped._.1003", "1:2", state="exited", ago_s=0)
    host.run("by-count._.1004", count=1, ago_s=0)
    host.run("by-all._.1005", count=-1, ago_s=0)
    host.run("paused._.1006", "2:2", state="paused", ago_s=0)
    host.run("created._.1007", "3:0", state="created", ago_s=0)
    host.run("whole._.1008", "0", ago_s=0)
    host.run("whole-uuid._.1009", slots["0"], ago_s=0)
    host.sweeps(0, 0, 30, 0)  # twice: a busy machine may not inspect all of them in one look
    assert host.booked() == everyone({**BEFORE, GONE: gone})


def settle_down(host: SimulatedHost, living: Mapping[str, str], gone: str) -> None:
    """Book everybody, and make the first passes while they are being created."""
    bookings: dict[str, list[str]] = {gone: [GONE]}
    for name, slot in living.items():
        bookings.setdefault(slot, []).append(name)
    host.book(bookings, ago_s=60)
    host.record(GONE, gone)
    host.sweeps(0, 30)
    assert host.booked() == everyone({**living, GONE: gone})


def everyone(slots: Mapping[str, str]) -> dict[str, frozenset[str]]:
    return {name: frozenset({slot}) for name, slot in slots.items()}


def living(host: SimulatedHost) -> dict[str, frozenset[str]]:
    return {name: slots for name, slots in host.booked().items() if name != GONE}


def flagged(report: Report) -> set[tuple[str | None, str | None]]:
    return {
        (one.container, one.slot)
        for one in report.findings
        if one.kind is FindingKind.BOOKING_WITHOUT_DEVICE
    }


def nvml_says(report: Report) -> str:
    return report.sources[Source.NVML]


@pytest.fixture
def host(simulated_host: SimulatedHost) -> SimulatedHost:
    simulated_host.watch = True
    return simulated_host


# --- NVML fails -------------------------------------------------------------------------------

TOTAL: Mapping[str, tuple[World, str]] = {
    "uninitialized": (prod4().with_fault("nvmlDeviceGetCount", 1), "Uninitialized"),
    "driver not loaded": (prod4().with_fault("nvmlInit", 9), "modprobe nvidia"),
    "timeout": (prod4().with_fault("nvmlDeviceGetCount", 10), "nvmlDeviceGetCount"),
    "library not found": (prod4().with_fault("nvmlInit", 12), "libnvidia-ml.so.1"),
    "function not found": (prod4().with_fault("nvmlDeviceGetCount", 13), "too old"),
    "version mismatch": (prod4().with_fault("nvmlInit", 18), "the driver was upgraded"),
    "unknown at once": (prod4().with_fault("nvmlInit", 999), "nvidia-smi"),
    "no GPU at all": (World(), "no GPU"),
    "a UUID twice": (
        dataclasses.replace(prod4(), gpus=(*prod4().gpus, prod4().gpus[0])),
        "more than once",
    ),
    "a MIG UUID twice": (
        dataclasses.replace(prod4(), gpus=(*prod4().gpus[:3], prod4().gpus[2])),
        "more than once",
    ),
}


@pytest.mark.parametrize("fault", TOTAL)
def test_while_nvml_fails_nothing_changes_and_then_it_goes_on(
    host: SimulatedHost, fault: str
) -> None:
    world, words = TOTAL[fault]
    populate(host)
    before = host.bytes_of_books()
    host.show(world)
    for after in LONG:
        report = host.sweep(after_s=after)
        assert words in nvml_says(report)
        assert not report.needed_sources_ok
        assert not report.is_consistent
        assert host.bytes_of_books() == before
    host.show(prod4())
    report = host.sweeps(10, 10)
    assert nvml_says(report) == "ok"
    assert host.booked() == everyone(BEFORE)
    assert not flagged(report) - {("by-count._.1004", "2.0"), ("by-all._.1005", "2.1")}


@pytest.mark.parametrize("fault", ["driver not loaded", "no GPU at all", "a UUID twice"])
def test_ds01d_that_starts_while_nvml_fails_takes_nothing(host: SimulatedHost, fault: str) -> None:
    populate(host)
    before = host.bytes_of_books()
    for path in host.own.iterdir():
        path.unlink()  # its memory too
    host.reopen()
    host.show(TOTAL[fault][0])
    host.sweeps(*LONG)
    assert host.bytes_of_books() == before
    host.show(prod4())
    host.sweeps(10, 10)
    assert host.booked() == everyone(BEFORE)


def test_without_a_library_nothing_changes(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    populate(host)
    before = host.bytes_of_books()
    (tmp_path / "no-lib").mkdir()
    (tmp_path / "no-lib" / nvml.library.NAME).write_bytes(b"no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "no-lib"))
    host.reopen()
    for after in LONG:
        assert "install the driver's libnvidia-ml.so.1" in nvml_says(host.sweep(after_s=after))
    assert host.bytes_of_books() == before
    monkeypatch.setenv("LD_LIBRARY_PATH", host.nvml.env["LD_LIBRARY_PATH"])
    host.sweeps(1, 10)  # the next sample is a fresh process and finds it
    assert host.booked() == everyone(BEFORE)


def test_without_the_symbols_for_processes_nothing_changes(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(host)
    before = host.bytes_of_books()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml.build(process_lists=False)))
    host.reopen()
    for after in LONG:
        assert "upgrade it" in nvml_says(host.sweep(after_s=after))
    assert host.bytes_of_books() == before


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetComputeRunningProcesses"])
def test_while_nvml_hangs_nothing_changes_and_the_pass_goes_on(
    host: SimulatedHost, call: str
) -> None:
    populate(host)
    before = host.bytes_of_books()
    host.configure(gpu={"timeout_s": Seconds(0.2)})
    host.reopen()
    host.show(prod4().with_fault(call, hang=True))
    for after in LONG[:4]:
        report = host.sweep(after_s=after)
        assert "timed out after 0.2 s" in nvml_says(report)
    assert host.bytes_of_books() == before
    assert len(host.nvml.sessions().pids) <= 1
    host.configure(gpu={"timeout_s": Seconds(20)})
    host.reopen()
    host.show(prod4())
    host.sweeps(200, 10)
    assert host.booked() == everyone(BEFORE)


def test_an_answer_that_comes_too_late_is_none(host: SimulatedHost) -> None:
    populate(host)
    before = host.bytes_of_books()
    host.configure(gpu={"timeout_s": Seconds(0.2)})
    host.reopen()
    host.show(prod4().with_fault("nvmlDeviceGetCount", delay_ms=600))
    for after in LONG[:4]:
        assert "timed out" in nvml_says(host.sweep(after_s=after))
    assert host.bytes_of_books() == before


# --- one GPU fails ----------------------------------------------------------------------------

ONE_GPU: Mapping[str, tuple[str, int]] = {
    "lost": ("nvmlDeviceGetHandleByIndex", 15),
    "lost while it is read": ("nvmlDeviceGetUUID", 15),
    "lost, its MIG devices too": ("nvmlDeviceGetMigDeviceHandleByIndex", 15),
    "wants a reset": ("nvmlDeviceGetHandleByIndex", 16),
    "wants a reset, processes": ("nvmlDeviceGetComputeRunningProcesses", 16),
    "processes not for us": ("nvmlDeviceGetComputeRunningProcesses", 4),
    "processes not supported": ("nvmlDeviceGetComputeRunningProcesses", 3),
    "processes too many": ("nvmlDeviceGetGraphicsRunningProcesses", 7),
    "unknown": ("nvmlDeviceGetUUID", 999),
    "unknown, no handle": ("nvmlDeviceGetHandleByIndex", 999),
    "unknown, processes": ("nvmlDeviceGetComputeRunningProcesses", 999),
    "unknown, MIG": ("nvmlDeviceGetMigMode", 999),
    "not for us": ("nvmlDeviceGetHandleByIndex", 4),
    "MIG not for us": ("nvmlDeviceGetMigMode", 4),
    "no power": ("nvmlDeviceGetHandleByIndex", 8),
    "timeout": ("nvmlDeviceGetMaxMigDeviceCount", 10),
}


@pytest.mark.parametrize("fault", ONE_GPU)
def test_on_a_gpu_that_fails_nothing_is_released(host: SimulatedHost, fault: str) -> None:
    call, code = ONE_GPU[fault]
    populate(host)
    before = host.bytes_of_books()
    host.show(prod4().with_fault(call, code, gpu=3))
    report = host.sweeps(*LONG)
    assert nvml_says(report) == "ok"
    assert host.bytes_of_books() == before
    assert not report.is_consistent, "an absence that cannot be proven is held, and said to be"
    host.show(prod4())
    host.sweeps(10, 10, 121, 10)
    assert host.booked() == everyone(BEFORE)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("fault", ONE_GPU)
def test_a_gpu_that_fails_holds_up_no_other(
    host: SimulatedHost, fault: str, restarted: bool
) -> None:
    call, code = ONE_GPU[fault]
    populate(host)
    if restarted:
        host.reopen()  # ds01d starts while the GPU is sick: no sample before it
    host.show(prod4().with_fault(call, code, gpu=1))
    slots = host.gpus().keys()
    report = host.sweeps(*LONG)
    assert nvml_says(report) == "ok"
    assert host.booked() == everyone(BEFORE)
    assert host.gpus().keys() == slots, "the devices of a lost GPU did not vanish"
    assert report.is_consistent, told(report)
    unwell = {one.slot for one in report.findings if one.kind is FindingKind.UNHEALTHY_GPU}
    assert unwell
    assert all(slot is not None and slot.startswith("1.") for slot in unwell)


@pytest.mark.parametrize("fault", ["lost", "unknown", "unknown, MIG", "lost, its MIG devices too"])
def test_a_gpu_that_nothing_remembers_leaves_its_own_slots_undecided(
    host: SimulatedHost, fault: str
) -> None:
    """Without memory, and sick from the first look: no table follows, but the others go on."""
    call, code = ONE_GPU[fault]
    populate(host)
    host.book({"3.1": [GONE], "1.3": ["away._.1011"], **{s: [n] for n, s in BEFORE.items()}})
    for path in host.own.iterdir():
        path.unlink()
    host.reopen()
    host.show(prod4().with_fault(call, code, gpu=1))
    slots = host.gpus().keys()
    report = host.sweeps(0, *LONG, *LONG, *LONG)
    assert nvml_says(report) == "ok"
    assert GONE not in host.booked()
    assert host.booked()["away._.1011"] == {"1.3"}
    held = told(report)["stale-allocation away._.1011"]
    assert held.gate is WaitReason.BLOCKED
    assert "GPU 1" in held.reason
    assert host.gpus().keys() == slots
    unwell = [one for one in report.findings if one.kind is FindingKind.UNHEALTHY_GPU]
    assert any("GPU 1" in one.reason for one in unwell)
    host.show(prod4())
    host.sweeps(10, 121, 10)
    assert "away._.1011" not in host.booked()


def test_a_gpu_that_is_sick_now_and_then_freezes_nothing(host: SimulatedHost) -> None:
    """Its devices are what they were: no change of the inventory, no waits that start anew."""
    populate(host)
    for number in range(12):
        sick = prod4().with_fault("nvmlDeviceGetHandleByIndex", 999, gpu=1)
        host.show(sick if number % 2 else prod4())
        host.sweep(after_s=11)
    assert host.booked() == everyone(BEFORE)


# --- GPUs and MIG devices change ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of the GPUs, and what follows from it.

    Where everybody is booked in the end (only those that move), who is flagged, and which slots
    there are then (None: as the devices).

    What is stopped and asks by index is flagged where that index is another device than its slot's
    today: what it will get at its next start is not known.
    """

    after: World
    moves: Mapping[str, str]
    flagged: Iterable[str] = ()
    slots: Iterable[str] | None = None


MIG_1 = {0: 1, 1: 2, 2: 3, 3: 0}
GROWN = (*prod4().gpus[1].migs, SimMig(uuid="MIG-new", index=4, gi=12))
PROD4_SLOTS = set(prod4().slots())

CHANGES: Mapping[str, Change] = {
    "re-created, all": Change(
        after=prod4().recreated(),
        moves={},
        flagged=("by-uuid._.1001", "by-index._.1002", "paused._.1006"),
    ),
    "re-created, one GPU": Change(
        after=prod4().recreated(1), moves={}, flagged=("by-uuid._.1001", "by-index._.1002")
    ),
    "renumbered": Change(
        after=prod4().migs_renumbered(1, MIG_1),
        moves={"by-uuid._.1001": "1.1", "by-index._.1002": "1.2", "stopped._.1003": "1.3"},
        flagged=("stopped._.1003",),
    ),
    "swapped": Change(
        after=prod4().migs_renumbered(2, {0: 1, 1: 0}),
        moves={"by-count._.1004": "2.1", "by-all._.1005": "2.0"},
    ),
    "GPUs renumbered": Change(
        after=prod4().renumbered([3, 2, 1, 0]),
        moves={
            "by-uuid._.1001": "2.0",
            "by-index._.1002": "2.1",
            "stopped._.1003": "2.2",
            "by-count._.1004": "1.0",
            "by-all._.1005": "1.1",
            "paused._.1006": "1.2",
            "created._.1007": "0.0",
            "whole._.1008": "3",
            "whole-uuid._.1009": "3",
        },
        flagged=("stopped._.1003", "created._.1007"),
    ),
    "shrunk by a GPU": Change(
        after=prod4().shrunk(3),
        moves={},
        flagged=("created._.1007",),
        slots=PROD4_SLOTS - {"3.1", "3.2", "3.3"},
    ),
    "shrunk by MIG devices": Change(
        after=prod4().without_device("1.0").without_device("1.3").without_device("2.2"),
        moves={},
        flagged=("by-uuid._.1001", "paused._.1006"),
        slots=PROD4_SLOTS - {"1.3"},
    ),
    "the first GPU fell off the bus": Change(
        after=prod4().without_device("0"),
        moves={
            "by-uuid._.1001": "0.0",
            "by-index._.1002": "0.1",
            "stopped._.1003": "0.2",
            "by-count._.1004": "1.0",
            "by-all._.1005": "1.1",
            "paused._.1006": "1.2",
            "created._.1007": "2.0",
        },
        flagged=("whole._.1008", "whole-uuid._.1009", "stopped._.1003", "created._.1007"),
        slots={"0", *prod4().without_device("0").slots()},
    ),
    "grown by a MIG device": Change(
        after=dataclasses.replace(
            prod4(),
            gpus=(
                prod4().gpus[0],
                dataclasses.replace(prod4().gpus[1], migs=GROWN),
                *prod4().gpus[2:],
            ),
        ),
        moves={},
        slots=PROD4_SLOTS | {"1.4"},
    ),
    "grown by a GPU": Change(
        after=dataclasses.replace(
            prod4(), gpus=(*prod4().gpus, SimGpu(uuid="GPU-new", minor=9, pci_bus=0x99))
        ),
        moves={},
        slots=PROD4_SLOTS,  # a whole GPU is not handed out beside MIG devices
    ),
    "one GPU whole again": Change(
        after=prod4().without_mig(1),
        moves={},
        flagged=("by-uuid._.1001", "by-index._.1002", "stopped._.1003"),
        slots=PROD4_SLOTS - {"1.3"},
    ),
    "no MIG any more": Change(
        after=prod4().without_mig(),
        moves={},
        flagged=(
            *("by-uuid._.1001", "by-index._.1002", "stopped._.1003", "by-count._.1004"),
            *("by-all._.1005", "paused._.1006", "created._.1007"),
        ),
        slots={"0", "1", "2", "3", "1.0", "1.1", "1.2", "2.0", "2.1", "2.2", "3.0"},
    ),
}

MOST_TELLING = ("re-created, all", "renumbered", "GPUs renumbered", "no MIG any more")


def expected(change: Change) -> dict[str, frozenset[str]]:
    return everyone({**BEFORE, **change.moves})


def check_end(host: SimulatedHost, change: Change, report: Report) -> None:
    """Everybody is where the change puts them, the slots are those of the devices."""
    assert host.booked() == expected(change), told(report)
    slots = set(change.after.slots()) if change.slots is None else set(change.slots)
    assert set(host.gpus()) == slots
    by_nature = {"by-count._.1004", "by-all._.1005"}  # they say not which device they have
    assert {name for name, _ in flagged(report)} - by_nature == set(change.flagged) - by_nature
    known = change.after.slots()
    for slot, entry in host.gpus().items():
        if "." in slot and slot in known:
            assert entry["uuid"] == entry["docker_id"] == known[slot]


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_the_gpus_holders_go_with_their_device(
    host: SimulatedHost, change: str
) -> None:
    populate(host)
    before = host.bytes_of_books()
    host.show(CHANGES[change].after)
    passed = 0.0
    report = host.sweep(after_s=6)  # a sample may be as old as the settle time
    for after in (0.0, 10.0, 50.0, 59.0):
        report = host.sweep(after_s=after)
        passed += after
        assert host.bytes_of_books() == before, f"{passed} s after the change"
        assert not report.is_consistent
    held = [one for one in report.drifts if one.gate is WaitReason.INVENTORY]
    assert any(one.drift.container == GONE for one in held), told(report)
    report = host.sweep(after_s=2)
    for after in (6.0, 6.0, 200.0):
        assert living(host) in (everyone(BEFORE), expected(CHANGES[change]))
        assert {name for name, _ in released(report)} <= {GONE, *CHANGES[change].moves}
        report = host.sweep(after_s=after)
    check_end(host, CHANGES[change], report)
    assert report.is_consistent, told(report)


@pytest.mark.parametrize("change", MOST_TELLING)
def test_ds01d_that_was_down_meanwhile_finds_the_same(host: SimulatedHost, change: str) -> None:
    populate(host)
    host.reopen()
    host.clock.ahead_s += 1000
    host.show(CHANGES[change].after)
    host.sweeps(0, 10, 111, 6)
    report = host.sweeps(*LONG[:4])
    check_end(host, CHANGES[change], report)


@pytest.mark.parametrize("change", [*MOST_TELLING, "shrunk by a GPU", "one GPU whole again"])
def test_ds01d_that_never_saw_it_before_moves_nothing_that_lives_away_from_its_device(
    host: SimulatedHost, change: str
) -> None:
    """Without memory only what names its device by UUID can be told: in the state, or by request.

    Whole GPUs have no UUID in the state, so their holders stay.
    """
    populate(host)
    for path in host.own.iterdir():
        path.unlink()
    host.reopen()
    host.show(CHANGES[change].after)
    report = host.sweeps(0, *LONG[:4])
    wanted = expected(CHANGES[change])
    whole = ("whole._.1008", "whole-uuid._.1009")
    there = living(host)
    assert there.keys() == wanted.keys()
    assert {n: s for n, s in there.items() if n not in whole} == {
        n: s for n, s in wanted.items() if n not in whole
    }, told(report)
    for name in whole:
        assert there[name] <= wanted[name] | {"0"}


def test_full_gpus_cut_into_mig_devices_keep_their_holders(host: SimulatedHost) -> None:
    host.show(full(4))
    slots = host.world.slots()
    alive = {
        "by-index._.1001": "0",
        "by-uuid._.1002": "1",
        "by-count._.1003": "2",
        "stopped._.1004": "2",
    }
    settle_down(host, alive, gone="3")
    host.run("by-index._.1001", "0", ago_s=0)
    host.run("by-uuid._.1002", slots["1"], ago_s=0)
    host.run("by-count._.1003", count=2, ago_s=0)
    host.run("stopped._.1004", "2", state="exited", ago_s=0)
    host.sweeps(0, 30)
    cut = dataclasses.replace(
        full(4).gpus[1],
        mig=True,
        migs=tuple(SimMig(uuid=f"MIG-{n}", index=n, gi=n + 7) for n in range(2)),
    )
    gpus = full(4).gpus
    host.show(World(gpus=(gpus[0], cut, *gpus[2:])))
    before = host.bytes_of_books()
    host.sweeps(6, 60, 59)
    assert host.bytes_of_books() == before
    report = host.sweeps(2, 6, 200, 200)
    assert host.booked() == everyone(alive)
    assert set(host.gpus()) == {"0", "1", "2", "1.0", "1.1"}
    assert ("by-uuid._.1002", "1") in flagged(report), "its GPU is divided now"
    host.show(full(4))
    report = host.sweeps(6, 60, 61, 10, 200)
    assert host.booked() == everyone(alive)
    assert set(host.gpus()) == {"0", "1", "2", "3"}
    assert ("by-uuid._.1002", "1") not in flagged(report)


def test_whole_gpus_are_listed_beside_mig_devices_only_if_that_is_wanted(
    host: SimulatedHost,
) -> None:
    host.configure(books={"whole_gpus": "always"})
    host.show(prod4().without_mig(2))
    host.book({})
    host.sweeps(0, 10, 10)
    assert (
        set(host.gpus())
        == set(host.world.slots())
        == {"0", "2"} | {slot for slot in PROD4_SLOTS if slot[0] in "13" and "." in slot}
    )


def test_the_holders_of_a_vanished_device_free_it_when_they_are_gone(host: SimulatedHost) -> None:
    populate(host)
    host.show(prod4().without_device("1.0"))
    report = host.sweeps(6, 60, 61, 10)
    assert ("by-uuid._.1001", "1.0") in flagged(report)
    host.engine.containers.remove("by-uuid._.1001")
    # Where `destroy` is heard after the first look, its settle time begins with the second one.
    host.sweeps(0, 121, 6, 6, 6)
    assert "1.0" not in host.gpus()
    assert "by-uuid._.1001" not in host.booked()


def test_a_container_by_index_that_starts_again_has_the_device_that_is_there_now(
    host: SimulatedHost,
) -> None:
    """It keeps its old device until it is started anew: then its index means another one."""
    populate(host)
    host.show(prod4().migs_renumbered(1, MIG_1))
    host.sweeps(6, 60, 61, 10)
    assert host.booked()["by-index._.1002"] == {"1.2"}
    host.stop("by-index._.1002")
    host.sweep(after_s=10)
    host.start("by-index._.1002")
    host.sweeps(10, 10)
    assert host.booked()["by-index._.1002"] == {"1.1"}


def test_a_layout_that_keeps_changing_releases_nothing(host: SimulatedHost) -> None:
    populate(host)
    before = host.bytes_of_books()
    for number in range(8):
        odd = number % 2
        host.show(prod4().migs_renumbered(1, MIG_1) if odd else prod4().recreated(2))
        host.sweep(after_s=60)
        assert host.bytes_of_books() == before
    host.show(prod4())
    host.sweeps(60, 121, 10)
    assert host.booked() == everyone(BEFORE)


def test_a_layout_that_is_back_before_anybody_acted_leaves_no_trace(host: SimulatedHost) -> None:
    populate(host)
    host.show(World(gpus=full(4).gpus))  # MIG is lost for a moment
    host.sweeps(6, 50)
    host.show(prod4())
    report = host.sweeps(6, 121, 10)
    assert host.booked() == everyone(BEFORE)
    assert set(host.gpus()) == PROD4_SLOTS
    assert report.is_consistent, told(report)


# --- a boot -----------------------------------------------------------------------------------


def reboot(host: SimulatedHost, *, since_s: float = 60) -> None:
    """Boot the host anew: containers with a restart policy run again, the others are stopped."""
    host.reopen()
    host.clock.reboot(since_s=since_s)


@pytest.mark.parametrize(
    "after", [prod4().without_mig(), prod4().shrunk(2), prod4().without_device("2.2")]
)
def test_soon_after_a_boot_fewer_devices_than_before_are_not_believed(
    host: SimulatedHost, after: World
) -> None:
    populate(host)
    before = host.bytes_of_books()
    reboot(host)
    host.show(after)
    for wait in (0, 200, 200, 200, 200):
        report = host.sweep(after_s=wait)
        assert "may still be restored" in nvml_says(report)
        assert host.bytes_of_books() == before
    host.show(prod4())
    host.sweeps(10, 10, 130)
    assert host.booked() == everyone(BEFORE)


def test_in_the_first_minutes_of_a_host_only_fewer_devices_have_to_wait(
    host: SimulatedHost,
) -> None:
    """ds01d has run since 60 s after the boot. Releases go on, changed devices are believed."""
    host.clock.reboot(since_s=60)
    populate(host)
    report = host.sweeps(121, 6)
    assert nvml_says(report) == "ok"
    assert host.booked() == everyone(BEFORE)
    host.show(prod4().recreated(2))  # as many as before: that is no layout to be restored
    report = host.sweeps(6, 60, 61, 6)
    assert nvml_says(report) == "ok"
    assert host.gpus()["2.0"]["uuid"] == prod4().recreated(2).slots()["2.0"]
    host.show(prod4().recreated(2).without_device("1.3"))
    for after in (10, 200, 200):
        report = host.sweep(after_s=after)
        assert "may still be restored" in nvml_says(report)
        assert "1.3" in host.gpus()
    assert host.clock.read_boot() < 900
    report = host.sweeps(150, 121, 6)
    assert nvml_says(report) == "ok"
    assert "1.3" not in host.gpus()
    assert host.booked() == everyone(BEFORE)


def test_a_while_after_a_boot_fewer_devices_are_believed(host: SimulatedHost) -> None:
    populate(host)
    reboot(host)
    host.show(prod4().without_device("1.3"))
    for after in (0, 200, 200, 200, 200):
        host.sweep(after_s=after)
    assert "1.3" in host.gpus()
    report = host.sweeps(100, 121, 6)
    assert nvml_says(report) == "ok"
    assert "1.3" not in host.gpus()


def test_soon_after_a_boot_a_layout_as_before_is_believed_at_once(host: SimulatedHost) -> None:
    populate(host)
    reboot(host)
    assert nvml_says(host.sweep()) == "ok"
    host.sweeps(121, 6)
    assert host.booked().keys() == {*BEFORE, GONE}, "waiting times start anew, a creation's too"
    host.sweeps(200, 200, 200, 180, 6)
    assert GONE not in host.booked()


# --- processes --------------------------------------------------------------------------------


def test_a_process_of_a_running_container_keeps_another_booked_slot(host: SimulatedHost) -> None:
    """Booked in two slots, asking for one: it keeps what it uses, and no more."""
    ident = host.run("wide._.1001", host.world.slots()["1.0"])
    host.book({"1.0": ["wide._.1001"], "1.1": ["wide._.1001"]})
    host.record("wide._.1001", "1.0")
    pid = host.proc.add(ident)
    host.show(prod4().with_process("1.1", pid))
    host.sweeps(0, 60, 200, 200)
    assert host.booked() == {"wide._.1001": {"1.0", "1.1"}}
    host.show(prod4())
    host.sweeps(10, 10)
    assert host.booked() == {"wide._.1001": {"1.0"}}


def test_a_process_list_that_fails_keeps_another_booked_slot(host: SimulatedHost) -> None:
    host.run("wide._.1001", host.world.slots()["1.0"])
    host.book({"1.0": ["wide._.1001"], "2.1": ["wide._.1001"]})
    host.record("wide._.1001", "1.0")
    host.show(prod4().with_fault("nvmlDeviceGetComputeRunningProcesses", 3, gpu=2))
    report = host.sweeps(0, 60, 200)
    assert host.booked() == {"wide._.1001": {"1.0", "2.1"}}
    assert not report.is_consistent or told(report) == {}
    host.show(prod4())
    host.sweeps(10, 10)
    assert host.booked() == {"wide._.1001": {"1.0"}}


@pytest.mark.parametrize("pid", [0, 4_294_967_295, 4_194_305])
def test_a_pid_that_cannot_be_keeps_what_is_booked_on_its_device(
    host: SimulatedHost, pid: int
) -> None:
    """A container requests 1.1 and is booked on 1.1 and 1.2; another on 1.3 is absent."""
    slots = host.world.slots()
    ident = host.run("wide._.1001", slots["1.1"])
    host.book({"1.1": ["wide._.1001"], "1.2": ["wide._.1001"], "1.3": [GONE], "2.3": ["away._.1"]})
    host.record("wide._.1001", "1.1")
    calm = prod4().with_process("1.1", host.proc.add(ident))
    host.show(calm.with_process("1.2", pid).with_process("1.3", pid))
    report = host.sweeps(0, 60, *LONG, *LONG)
    assert host.booked() == everyone({GONE: "1.3"}) | {"wide._.1001": {"1.1", "1.2"}}
    held = told(report)[f"stale-allocation {GONE}"]
    assert held.gate is WaitReason.BLOCKED
    assert f"invalid pid {pid}" in held.reason
    unwell = {one.slot for one in report.findings if one.kind is FindingKind.UNHEALTHY_GPU}
    assert unwell == {"1.2"}, "one finding for one reason"
    assert not report.is_consistent
    host.show(calm)
    host.sweeps(10, 10, 121)
    assert host.booked() == everyone({"wide._.1001": "1.1"})


def test_a_process_that_proc_does_not_have_keeps_what_is_booked(host: SimulatedHost) -> None:
    """It is one of another PID namespace, or something that it left behind uses the device."""
    populate(host)
    host.show(prod4().with_process("3.1", 4_123_456))
    report = host.sweeps(*LONG)
    assert host.booked()[GONE] == {"3.1"}
    held = told(report)[f"stale-allocation {GONE}"]
    assert held.gate is WaitReason.BLOCKED
    assert "4123456" in held.reason
    host.show(prod4())
    host.sweeps(10, 10)
    assert GONE not in host.booked()


def test_a_process_of_a_container_that_the_engine_does_not_list_blocks_the_release(
    host: SimulatedHost,
) -> None:
    """Podman, another engine, or one that forgot it: somebody is on that device."""
    populate(host)
    pid = host.proc.add("f" * 64)
    host.show(prod4().with_process("3.1", pid))
    report = host.sweep()
    for after in LONG:
        report = host.sweep(after_s=after)
        assert host.booked()[GONE] == {"3.1"}
    held = told(report)["stale-allocation " + GONE]
    assert str(pid) in held.reason + held.drift.reason + str(held.drift.evidence)
    assert not report.is_consistent
    host.show(prod4())
    host.sweeps(10, 10)
    assert GONE not in host.booked()


def test_a_process_of_the_host_blocks_no_release(host: SimulatedHost) -> None:
    populate(host)
    host.show(prod4().with_process("3.1", host.proc.add(None)))
    report = host.sweeps(121, 6)
    assert GONE not in host.booked()
    assert FindingKind.ROGUE_PROCESS in {one.kind for one in report.findings}


def test_a_process_on_another_device_blocks_no_release(host: SimulatedHost) -> None:
    populate(host)
    host.show(prod4().with_process("3.2", host.proc.add("f" * 64)))
    host.sweeps(121, 6)
    assert GONE not in host.booked()


def test_a_process_of_a_listed_container_elsewhere_blocks_no_release(host: SimulatedHost) -> None:
    populate(host)
    other = host.engine.containers.get("by-uuid._.1001").id
    host.show(prod4().with_process("3.1", host.proc.add(other)))
    host.sweeps(121, 6)
    assert GONE not in host.booked()
    assert host.booked()["by-uuid._.1001"] == {"1.0"}


def test_a_process_on_the_whole_of_a_divided_gpu_counts_for_its_slot(host: SimulatedHost) -> None:
    """The holder of a whole GPU that was cut into MIG devices: a process on a part is on it."""
    host.show(full(2))
    host.book({"1": [GONE]})
    host.sweeps(0, 60, 30)
    cut = dataclasses.replace(
        full(2).gpus[1], mig=True, migs=(SimMig(uuid="MIG-part", index=0, gi=1),)
    )
    host.show(World(gpus=(full(2).gpus[0], cut)).with_process("1.0", host.proc.add("e" * 64)))
    host.sweeps(*LONG)
    assert host.booked() == {GONE: {"1"}}


# --- on a real engine --------------------------------------------------------------------------


@pytest.mark.docker
def test_the_process_of_a_real_container_keeps_its_slot(
    nvml_site: Site, engine: PrivateEngine, nvml_world: NvmlWorld
) -> None:
    """The whole way: dockerd, the container's own process, its cgroup, NVML's list, the books."""
    slots = prod4().slots()
    name = "wide._.1001"
    labels = {"aime.mlc": "alice", "ds01.managed": "true"}
    engine.run(name, devices=slots["1.0"], labels=labels)
    ghost = engine.run("ghost", devices=None)
    world = prod4().with_process("1.1", engine.pid_of(name))
    nvml_world.set(world.with_process("2.0", engine.pid_of("ghost")))
    for slot in ("1.0", "1.1", "1.2"):
        nvml_site.allocator.allocate(name, "alice", slot)
    with RunningDaemon(nvml_site) as daemon:
        daemon.booked((name, "1.0"), (name, "1.1"))
        rogue = nvml_site.ctl("plan", "--json").stdout
        assert ghost[:12] in rogue
        nvml_world.set(prod4())
        daemon.booked((name, "1.0"))
        engine.remove(name)
        daemon.booked()


@pytest.mark.docker
@pytest.mark.skipif(not (HIERARCHY / "devices.list").exists(), reason="needs cgroup v1")
def test_a_real_container_whose_cgroup_loses_its_device_is_reported(
    nvml_site: Site, engine: PrivateEngine, tmp_path: Path
) -> None:
    """Rules that the kernel keeps, written by Docker and taken away as systemd does."""
    name = "train._.1001"
    nodes = []
    for node, minor in (("nvidia1", 1), ("nvidiactl", 255)):
        os.mknod(tmp_path / node, 0o20666, os.makedev(195, minor))
        nodes.append(f"{tmp_path / node}:/dev/{node}")
    container = engine.run(
        name,
        devices=prod4().slots()["1.0"],
        host_devices=nodes,
        labels={"aime.mlc": "alice", "ds01.managed": "true"},
    )
    nvml_site.allocator.allocate(name, "alice", "1.0")
    nvml_site.configure(daemon={"sweep_interval": "5s"})
    (rules,) = HIERARCHY.glob(f"**/*{container}*/devices.deny")
    with RunningDaemon(nvml_site) as daemon:
        daemon.sweeps(2)
        assert json.loads(nvml_site.ctl("explain", name, "--json").stdout)["device_access"] == {
            "needs": ["/dev/nvidia1"],
            "can_open": True,
            "denied": [],
        }
        assert daemon.seen("finding.new", finding="device-lost") == []
        for minor in (1, 255):
            rules.write_text(f"c 195:{minor} rw", encoding="ascii")
        entry = daemon.wait_for("finding.new", finding="device-lost")
        assert (entry["container"], entry["slot"], entry["level"]) == (name, "1.0", "warning")
        engine.client.restart(name, timeout=0)
        daemon.wait_for("finding.gone", finding="device-lost")
        assert nvml_site.bookings() == {(name, "1.0")}


@pytest.mark.docker
def test_a_real_container_that_uses_nothing_is_reported_and_stays(
    nvml_site: Site, engine: PrivateEngine, nvml_world: NvmlWorld
) -> None:
    """Idle, then of use, then unknown, over a restart of the daemon; nothing is stopped."""
    labels = {"aime.mlc": "alice", "ds01.managed": "true"}
    name, kept = "book._.1001", "kept._.1001"
    engine.run(name, devices=prod4().slots()["1.0"], labels=labels)
    engine.run(kept, devices=prod4().slots()["1.1"], labels={**labels, "ds01.keep_alive": "1h"})
    nvml_site.configure(policy={"idle_after": "3s"}, daemon={"sweep_interval": "5s"})
    nvml_site.allocator.allocate(name, "alice", "1.0")
    nvml_site.allocator.allocate(kept, "alice", "1.1")

    def idle_since() -> dict[str, str | None]:
        slots = json.loads(nvml_site.ctl("status", "--json").stdout)["slots"]
        return {one["container"]: one["idle_since"] for slot in slots for one in slot["holders"]}

    with RunningDaemon(nvml_site) as daemon:
        daemon.outlast(3.0)
        entry = daemon.wait_for("finding.new", finding="idle-holder")
        assert (entry["container"], entry["slot"]) == (name, "1.0")
        since = until(lambda: idle_since()[name])  # the status comes after the line
    with RunningDaemon(nvml_site) as daemon:
        # Known from the checkpoint: the first sweep finds it.
        assert daemon.wait_for("finding.new", finding="idle-holder")["container"] == name
        until(lambda: idle_since()[name] == since)
        mark = daemon.mark()
        nvml_world.set(prod4().with_process("1.0", engine.pid_of(name)))
        daemon.reload()
        daemon.wait_for("finding.gone", since=mark, finding="idle-holder")
        until(lambda: idle_since()[name] is None, what=idle_since)
        nvml_world.set(prod4().with_fault("nvmlDeviceGetCount", 10))
        daemon.reload()
        # The log line of a sweep comes before its status.
        until(lambda: idle_since() == {name: None, kept: None}, what=idle_since)
        nvml_world.set(prod4())
        daemon.outlast(3.0)
        daemon.wait_for("finding.new", since=mark, finding="idle-holder", container=name)
        assert daemon.seen("finding.new", finding="idle-holder", container=kept) == []

        def reported() -> bool:
            findings = nvml_site.status()["findings"]
            found = [(one["kind"], one["user"], one["slots"]) for one in findings]
            return found == [("idle-holder", "alice", ["1.0"])]

        until(reported)
    assert {one["State"] for one in engine.client.containers()} == {"running"}


@pytest.mark.docker
@pytest.mark.engine_neutral
def test_a_daemon_survives_a_hanging_nvml_and_releases_when_it_answers(
    nvml_site: Site, engine: PrivateEngine, nvml_world: NvmlWorld
) -> None:
    labels = {"aime.mlc": "alice", "ds01.managed": "true"}
    engine.run("run._.1001", devices="1:0", labels=labels)
    engine.run("gone._.1001", devices="1:1", labels=labels)
    short = {"timeout": "1s"}
    nvml_site.configure(gpu=short, docker=short, daemon={"sweep_interval": "1s"})
    nvml_site.allocator.allocate("run._.1001", "alice", "1.0")
    nvml_site.allocator.allocate("gone._.1001", "alice", "1.1")
    with RunningDaemon(nvml_site) as daemon:
        nvml_world.set(prod4().with_fault("*", hang=True))
        since = daemon.mark()
        engine.remove("gone._.1001")
        daemon.wait_for("source.down", since=since, source="nvml")
        daemon.sweeps(2)
        assert nvml_site.bookings() == {("run._.1001", "1.0"), ("gone._.1001", "1.1")}
        assert len(nvml_world.sessions().pids) <= 1
        nvml_world.set(prod4())
        daemon.booked(("run._.1001", "1.0"))
        daemon.wait_for("source.up", since=since, source="nvml")
