"""Samples through the real pynvml, over the simulated NVML: what they say, what they survive."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ds01d.adapters.host.processes import Process
from ds01d.adapters.nvml import worker
from ds01d.adapters.nvml.sampler import NvmlSampler
from ds01d.adapters.nvml.worker_process import COMMAND, NoAnswer, NvmlProcess
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Boot, Source, Unknown
from simulation import nvml
from simulation.nvml import SimGpu, SimMig, SimProcess, World, prod4
from simulation.nvml.world import GIB
from tests.support.fixtures import NvmlWorld

LOST, RESET, NOT_SUPPORTED, NO_PERMISSION, INSUFFICIENT_SIZE = 15, 16, 3, 4, 7
NOW = Boot(float("inf"))


def everyone(pids: Iterable[int]) -> Mapping[int, Process]:
    """Find every process, on the host."""
    return {pid: Process(container=None) for pid in pids}


@dataclass(kw_only=True)
class Rig:
    """A sampler over a simulated NVML, on a clock that counts readings, and all it started."""

    world: NvmlWorld
    timeout_s: float = 20.0
    command: tuple[str, ...] = COMMAND
    environment: Mapping[str, str] | None = None
    driver_list: Path = Path("/nonexistent")
    find: Callable[[Iterable[int]], Mapping[int, Process]] = everyone
    pid_max: Callable[[], int] = lambda: 4_194_304
    kind: type[NvmlProcess] = NvmlProcess
    started: list[NvmlProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the sampler."""
        ticks = itertools.count(1)
        self.sampler = NvmlSampler(
            timeout_s=self.timeout_s,
            boot_clock=lambda: Boot(float(next(ticks))),
            find_processes=self.find,
            pid_max=self.pid_max,
            start=self.start,
            driver_list=self.driver_list,
        )

    def start(self) -> NvmlProcess:
        """Start a process and remember it."""
        environment = self.environment or self.world.env
        self.started.append(self.kind(command=self.command, environment=environment))
        return self.started[-1]

    def sample(self) -> Inventory | Unknown:
        """Take a new sample, whatever the last one was."""
        return self.sampler.sample(not_before=NOW)

    def good(self) -> Inventory:
        """Take a sample that succeeds."""
        answer = self.sample()
        assert isinstance(answer, Inventory), answer
        return answer

    def bad(self) -> str:
        """Take a sample that fails, and tell why it did."""
        answer = self.sample()
        assert isinstance(answer, Unknown), answer
        assert answer.source is Source.NVML
        return answer.reason

    def fault(self, function: str, code: int, *, gpu: int | None = None) -> None:
        """Let a call fail from now on."""
        self.world.set(prod4().with_fault(function, code, gpu=gpu))


@pytest.fixture
def make(nvml_world: NvmlWorld) -> Iterator[Callable[..., Rig]]:
    """Make rigs, and see to it that nothing of them is left."""
    rigs: list[Rig] = []

    def build(**options: object) -> Rig:
        rigs.append(Rig(world=nvml_world, **options))  # type: ignore[arg-type]
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.sampler.close()
        assert all(process.has_ended for process in rig.started)


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()


def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ended(pid: int, within_s: float = 20) -> bool:
    """Wait for a process to end, also one that is not our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


# --- what a sample says -----------------------------------------------------------------------


def test_a_sample_tells_every_gpu_and_mig_device(rig: Rig) -> None:
    inventory = rig.good()
    slots = {str(gpu.index): gpu.uuid for gpu in inventory.gpus if not gpu.mig}
    slots |= {f"{mig.gpu_index}.{mig.index}": mig.uuid for mig in inventory.migs}
    assert slots == prod4().slots()
    assert inventory.driver == "535.183.01"
    assert inventory.sampled_at == Boot(1.0)
    whole, cut = inventory.gpus[:2]
    assert (whole.minor, whole.pci, whole.name) == (0, "0000:21:00", "NVIDIA A100 80GB PCIe")
    assert (whole.mig, whole.utilization, whole.memory_total) == (False, 0, 80 * GIB)
    assert (whole.temperature, cut.temperature) == (31, 31)
    assert whole.health == cut.health == ()
    mig = inventory.migs[0]
    assert (mig.gpu, mig.profile, mig.gi, mig.ci) == (cut.uuid, "1g.10gb", 7, 0)
    assert mig.memory_total == 10 * GIB
    assert inventory.blind == {}


def test_what_mig_forbids_is_unknown_not_zero(rig: Rig) -> None:
    assert rig.good().gpus[1].utilization is None


@pytest.mark.parametrize("code", [3, 4, 13])
def test_a_temperature_that_is_not_to_be_had_is_unknown(rig: Rig, code: int) -> None:
    rig.world.set(prod4().with_fault("nvmlDeviceGetTemperature", code, gpu=0))
    assert [gpu.temperature for gpu in rig.good().gpus] == [None, 31, 31, 31]


def test_a_gpu_without_mig_is_told_from_one_that_has_it_off(rig: Rig) -> None:
    plain = SimGpu(uuid="GPU-plain", minor=0, pci_bus=1, mig=None)
    rig.world.set(World(gpus=(plain, SimGpu(uuid="GPU-off", minor=1, pci_bus=2, mig=False))))
    assert [gpu.mig for gpu in rig.good().gpus] == [None, False]


def test_mig_indices_may_have_holes_and_instance_0_is_one(rig: Rig) -> None:
    migs = (SimMig(uuid="MIG-a", index=1, gi=0), SimMig(uuid="MIG-b", index=5, gi=3, ci=1))
    rig.world.set(World(gpus=(SimGpu(uuid="GPU-a", minor=3, pci_bus=7, mig=True, migs=migs),)))
    found = [(mig.uuid, mig.index, mig.gi, mig.ci) for mig in rig.good().migs]
    assert found == [("MIG-a", 1, 0, 0), ("MIG-b", 5, 3, 1)]


def test_an_empty_mig_index_may_also_be_called_an_invalid_argument(rig: Rig) -> None:
    rig.world.set(prod4().with_fault("nvmlDeviceGetMigDeviceHandleByIndex", 2, gpu=1))
    assert {mig.gpu_index for mig in rig.good().migs} == {2, 3}


def test_a_new_layout_is_seen_by_the_next_sample_of_the_same_process(rig: Rig) -> None:
    rig.good()
    world = prod4().recreated(1).without_mig(2).without_device("3.1")
    rig.world.set(world)
    inventory = rig.good()
    migs = {f"{mig.gpu_index}.{mig.index}": mig.uuid for mig in inventory.migs}
    assert migs == {slot: uuid for slot, uuid in world.slots().items() if "." in slot}
    assert len(rig.started) == 1


def test_no_gpu_and_a_uuid_twice_are_told_as_they_are(rig: Rig) -> None:
    rig.world.set(World())
    assert rig.good().gpus == ()
    twin = SimGpu(uuid="GPU-twin", minor=0, pci_bus=1)
    rig.world.set(World(gpus=(twin, twin)))
    assert [gpu.uuid for gpu in rig.good().gpus] == ["GPU-twin", "GPU-twin"]


def test_nvml_is_closed_between_samples(rig: Rig) -> None:
    for count in (1, 2, 3):
        rig.good()
        sessions = rig.world.sessions()
        assert (sessions.pids, sessions.opened) == ((), count)
    assert len(rig.started) == 1


def test_health_comes_from_ecc_and_remapped_rows(rig: Rig) -> None:
    rig.world.set(
        World(
            gpus=(
                SimGpu(uuid="GPU-ecc", minor=0, pci_bus=1, ecc_errors=3),
                SimGpu(uuid="GPU-rows", minor=1, pci_bus=2, remap_pending=True, remap_failed=True),
                SimGpu(uuid="GPU-dumb", minor=2, pci_bus=3, ecc_errors=None, remapped_rows=None),
            )
        )
    )
    ecc, rows, dumb = (gpu.health for gpu in rig.good().gpus)
    assert ecc == ("3 uncorrected ECC errors since the driver was loaded",)
    assert rows == (
        "rows of its memory wait for a reset to be remapped",
        "a row of its memory could not be remapped",
    )
    assert dumb == ()


# --- who uses the devices ---------------------------------------------------------------------


def test_processes_are_told_once_per_device_also_under_mig(rig: Rig) -> None:
    world = (
        prod4()
        .with_process("0", 10, 5)
        .with_process("0", 10, 5, graphics=True)
        .with_process("0", 11, None, graphics=True)
        .with_process("1.2", 12, 7)
        .with_process("2.0", 12, 8)
    )
    rig.world.set(world)
    slots = {uuid: slot for slot, uuid in world.slots().items()}
    found = {(slots[use.device], use.pid, use.memory) for use in rig.good().processes}
    assert found == {("0", 10, 5), ("0", 11, None), ("1.2", 12, 7), ("2.0", 12, 8)}


def test_many_processes_do_not_exceed_any_buffer(rig: Rig) -> None:
    world = prod4()
    for pid in range(1000, 1400):
        world = world.with_process("0", pid)
    rig.world.set(world)
    assert len(rig.good().processes) == 400


def test_processes_are_looked_up_together(make: Callable[..., Rig]) -> None:
    asked: list[set[int]] = []
    failure = Unknown(source=Source.NVML, reason="hidden")

    def find(pids: Iterable[int]) -> Mapping[int, Process]:
        asked.append(set(pids))
        return {pid: Process(container=failure, user="ada", command="python") for pid in pids}

    rig = make(find=find)
    rig.world.set(prod4().with_process("0", 11).with_process("1.0", 12).with_process("0", 12))
    processes = rig.good().processes
    assert asked == [{11, 12}]
    assert {(use.pid, use.user, use.command) for use in processes} == {
        (11, "ada", "python"),
        (12, "ada", "python"),
    }
    assert all(use.container == failure for use in processes)


def test_a_process_that_has_ended_is_left_out_once_nvml_leaves_it_out(
    make: Callable[..., Rig],
) -> None:
    mine: Rig

    def find(pids: Iterable[int]) -> Mapping[int, Process]:
        mine.world.set(prod4().with_process("0", 12))  # as soon as it is looked for, it is gone
        return {pid: Process(container=None) for pid in pids if pid == 12}

    mine = make(find=find)
    mine.world.set(prod4().with_process("0", 11).with_process("0", 12))
    assert [use.pid for use in mine.good().processes] == [12]
    assert mine.world.sessions().opened == 2, "asked once more"
    assert [use.pid for use in mine.good().processes] == [12]
    assert mine.world.sessions().opened == 3


def test_a_process_that_nvml_goes_on_listing_is_unknown_not_gone(make: Callable[..., Rig]) -> None:
    """Its pid is one of another namespace, or its GPU context outlives it: the device is in use."""
    rig = make(find=lambda pids: {pid: Process(container=None) for pid in pids if pid != 11})
    rig.world.set(prod4().with_process("0", 11).with_process("0", 12))
    for opened in (2, 3):
        by_pid = {use.pid: use.container for use in rig.good().processes}
        assert by_pid[12] is None
        assert isinstance(by_pid[11], Unknown)
        assert "11" in by_pid[11].reason
        assert rig.world.sessions().opened == opened, "only what is new is asked for once more"
    rig.world.set(prod4())
    assert rig.good().processes == ()


@pytest.mark.parametrize("pid", [0, 4_294_967_295, 4_194_305, 32_769])
@pytest.mark.parametrize("slot", ["0", "1.1"])
def test_a_pid_that_cannot_be_spoils_the_list_of_its_device(
    make: Callable[..., Rig], pid: int, slot: str
) -> None:
    rig = make(pid_max=lambda: 32_768)
    rig.world.set(prod4().with_process(slot, 12).with_process(slot, pid).with_process("2.0", 13))
    inventory = rig.good()
    assert set(inventory.blind) == {prod4().slots()[slot]}
    (reason,) = inventory.blind.values()
    assert f"invalid pid {pid}" in reason
    assert "upgrade" in reason
    assert [use.pid for use in inventory.processes] == [13], "nor are the others to be trusted"
    rig.world.set(prod4().with_process(slot, 32_768))
    inventory = rig.good()
    assert inventory.blind == {}
    assert [use.pid for use in inventory.processes] == [32_768]


@pytest.mark.parametrize(("slot", "total"), [("0", 80), ("1.1", 10)])
def test_more_memory_than_the_device_has_spoils_the_list(rig: Rig, slot: str, total: int) -> None:
    size = total * GIB
    rig.world.set(prod4().with_process(slot, 12, size + 1))
    inventory = rig.good()
    assert set(inventory.blind) == {prod4().slots()[slot]}
    assert inventory.processes == ()
    rig.world.set(prod4().with_process(slot, 12, size))
    assert rig.good().blind == {}


@pytest.mark.parametrize("graphics", [False, True])
@pytest.mark.parametrize("sizes", [(GIB, 1 << 50), (1 << 50, GIB), (None, 1 << 50)])
def test_a_row_that_cannot_be_true_hides_behind_no_other_of_its_pid(
    rig: Rig, sizes: tuple[int | None, int], graphics: bool
) -> None:
    first, second = sizes
    world = prod4().with_process("0", 12, first).with_process("0", 12, second, graphics=graphics)
    rig.world.set(world)
    assert set(rig.good().blind) == {prod4().slots()["0"]}


@pytest.mark.parametrize("pid", [0, 4_294_967_295])
def test_a_pid_that_cannot_be_on_a_divided_gpu_spoils_the_lists_of_its_mig_devices(
    rig: Rig, pid: int
) -> None:
    """Their own lists look true, and may lack whoever that row is about."""
    on_gpu = SimProcess(pid=pid, memory=GIB)
    gpus = list(prod4().with_process("1.1", 11).with_process("2.0", 13).gpus)
    gpus[1] = dataclasses.replace(gpus[1], processes=(on_gpu,))
    rig.world.set(World(gpus=tuple(gpus)))
    inventory = rig.good()
    its = {mig.uuid for mig in inventory.migs if mig.gpu_index == 1}
    assert set(inventory.blind) == its | {inventory.gpus[1].uuid}
    assert [use.pid for use in inventory.processes] == [13]


def test_a_process_on_a_divided_gpu_and_on_none_of_its_parts_is_nobodys_there(rig: Rig) -> None:
    gpus = list(prod4().gpus)
    gpus[1] = dataclasses.replace(gpus[1], processes=(SimProcess(pid=77, memory=GIB),))
    rig.world.set(World(gpus=tuple(gpus)))
    inventory = rig.good()
    assert inventory.blind == {}
    assert inventory.processes == ()


@pytest.mark.parametrize("code", [2, 6])
def test_mig_devices_that_a_sick_gpu_does_not_name_are_not_gone_while_one_is_used(
    rig: Rig, code: int
) -> None:
    """The code is that of an empty index; the process list says that one is not empty."""
    calm = prod4().with_process("1.1", 11).with_process("2.1", 12)
    rig.world.set(calm)
    before = rig.good()
    rig.world.set(calm.with_fault("nvmlDeviceGetMigDeviceHandleByIndex", code, gpu=1))
    after = rig.good()
    assert [mig.uuid for mig in after.migs] == [mig.uuid for mig in before.migs]
    its = {mig.uuid for mig in before.migs if mig.gpu_index == 1}
    assert set(after.blind) == its | {before.gpus[1].uuid}
    assert "names no MIG device of GPU instance 8, where process 11 is" in after.gpus[1].health[0]
    assert [use.pid for use in after.processes] == [12]
    rig.world.set(calm)
    assert rig.good().blind == {}


def test_no_room_for_mig_devices_while_mig_is_on_is_no_answer(rig: Rig) -> None:
    """NVML says 0 where MIG is not supported or off; a GPU that says both is sick."""
    before = rig.good()
    its = {mig.uuid for mig in before.migs if mig.gpu_index == 1}
    rig.world.set(prod4().with_fault("nvmlDeviceGetMaxMigDeviceCount", empty=True, gpu=1))
    after = rig.good()
    assert [mig.uuid for mig in after.migs] == [mig.uuid for mig in before.migs]
    assert "there can be no MIG device (nvmlDeviceGetMaxMigDeviceCount)" in after.gpus[1].failed
    assert set(after.blind) == {before.gpus[1].uuid, *its}


def test_mig_is_not_off_while_a_process_is_in_an_instance(rig: Rig) -> None:
    """NVML lists processes in a GPU instance only of a GPU with MIG."""
    calm = prod4().with_process("0", 10)
    rig.world.set(calm.with_fault("nvmlDeviceGetMigMode", empty=True, gpu=1))
    assert [gpu.mig for gpu in rig.good().gpus] == [False, False, True, True]
    used = calm.with_process("1.1", 11)
    rig.world.set(used.with_fault("nvmlDeviceGetMigMode", empty=True, gpu=1))
    assert [gpu.mig for gpu in rig.good().gpus] == [False, None, True, True]


@pytest.mark.parametrize("function", ["Compute", "Graphics"])
def test_a_list_that_one_gpu_says_is_not_there_blinds_that_gpu_alone(
    rig: Rig, function: str
) -> None:
    """nvidia-ml-py takes that answer for a driver without the call."""
    rig.world.set(prod4().with_process("2.1", 12))
    before = rig.good()
    rig.world.set(
        prod4()
        .with_process("2.1", 12)
        .with_fault(f"nvmlDeviceGet{function}RunningProcesses", 13, gpu=1)
    )
    after = rig.good()
    assert set(after.blind) == {mig.uuid for mig in after.migs if mig.gpu_index == 1}
    assert after.processes == before.processes


def test_what_only_the_gpu_lists_of_a_mig_device_is_on_that_device(rig: Rig) -> None:
    """Its own list comes empty, as without the right to see it."""
    calm = prod4().with_process("1.1", 11).with_process("1.2", 12)
    for mig in (1, 2):
        calm = calm.with_fault("nvmlDeviceGetComputeRunningProcesses", empty=True, gpu=1, mig=mig)
    rig.world.set(calm)
    slots = {uuid: slot for slot, uuid in prod4().slots().items()}
    found = {(slots[use.device], use.pid) for use in rig.good().processes}
    assert found == {("1.1", 11), ("1.2", 12)}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, INSUFFICIENT_SIZE, 2, 6, 10, 999])
def test_a_device_whose_processes_cannot_be_listed_is_blind(rig: Rig, code: int) -> None:
    calm = prod4().with_process("0", 10).with_process("1.1", 11)
    rig.world.set(calm.with_fault("nvmlDeviceGetComputeRunningProcesses", code, gpu=1))
    inventory = rig.good()
    assert set(inventory.blind) == {mig.uuid for mig in inventory.migs if mig.gpu_index == 1}
    assert all("cannot be listed: " in reason for reason in inventory.blind.values())
    assert [use.pid for use in inventory.processes] == [10]


def test_graphics_that_mig_does_not_have_blind_nobody(rig: Rig) -> None:
    rig.fault("nvmlDeviceGetGraphicsRunningProcesses", NOT_SUPPORTED)
    inventory = rig.good()
    assert set(inventory.blind) == {inventory.gpus[0].uuid}


def test_a_driver_without_the_lists_is_no_driver_to_go_by(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.environment = os.environ | nvml.env(nvml.build(process_lists=False), rig.world.path)
    reason = rig.bad()
    assert "NVMLLibraryMismatchError" in reason
    assert "upgrade" in reason


# --- a GPU that fails, alone ------------------------------------------------------------------


@pytest.mark.parametrize(("code", "words"), [(LOST, "GPU is lost"), (RESET, "requires restart")])
@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMigMode"]
)
def test_a_gpu_that_fails_stays_what_it_was(rig: Rig, function: str, code: int, words: str) -> None:
    before = rig.good()
    rig.fault(function, code, gpu=2)
    after = rig.good()
    assert [gpu.uuid for gpu in after.gpus] == [gpu.uuid for gpu in before.gpus]
    assert [(gpu.mig, gpu.minor, gpu.pci) for gpu in after.gpus] == [
        (gpu.mig, gpu.minor, gpu.pci) for gpu in before.gpus
    ]
    assert [mig.uuid for mig in after.migs] == [mig.uuid for mig in before.migs]
    failed = after.gpus[2]
    assert words in failed.health[0]
    assert failed.memory_used is None
    assert set(after.blind) == {failed.uuid} | {
        mig.uuid for mig in after.migs if mig.gpu == failed.uuid
    }
    assert [gpu.health for gpu in after.gpus if gpu.index != 2] == [(), (), ()]
    assert rig.good().migs == after.migs, "and stays so"
    assert len(rig.started) == 1


def test_a_gpu_that_fails_at_the_end_is_not_blind(rig: Rig) -> None:
    rig.fault("nvmlDeviceGetRemappedRows", RESET, gpu=0)
    inventory = rig.good()
    assert inventory.gpus[0].health
    assert inventory.blind == {}


def test_a_gpu_that_never_said_who_it_is_is_missing_alone(rig: Rig) -> None:
    rig.fault("nvmlDeviceGetHandleByIndex", LOST, gpu=3)
    inventory = rig.good()
    assert [gpu.index for gpu in inventory.gpus] == [0, 1, 2]
    assert inventory.incomplete.keys() == {3}
    assert "GPU is lost (nvmlDeviceGetHandleByIndex)" in inventory.incomplete[3]
    assert "reset" in inventory.incomplete[3]
    assert inventory.blind == {}


def test_a_gpu_whose_mig_devices_were_never_seen_is_not_one_without_any(rig: Rig) -> None:
    rig.fault("nvmlDeviceGetMigMode", 999, gpu=3)
    inventory = rig.good()
    assert [gpu.index for gpu in inventory.gpus] == [0, 1, 2, 3]
    assert {mig.gpu_index for mig in inventory.migs} == {1, 2}
    assert inventory.incomplete.keys() == {3}
    assert set(inventory.blind) == {inventory.gpus[3].uuid}


def test_no_permission_to_ask_for_mig_is_not_mig_switched_off(rig: Rig) -> None:
    before = rig.good()
    rig.fault("nvmlDeviceGetMigMode", NO_PERMISSION, gpu=2)
    after = rig.good()
    assert [mig.uuid for mig in after.migs] == [mig.uuid for mig in before.migs]
    assert after.gpus[2].mig


def test_the_driver_may_say_who_a_lost_gpu_is(make: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make(driver_list=tmp_path / "gpus")
    for gpu in prod4().gpus:
        folder = tmp_path / "gpus" / f"0000:{gpu.pci_bus:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t A100\nGPU UUID: \t {gpu.uuid}\n")
    rig.fault("nvmlDeviceGetHandleByIndex", LOST, gpu=3)
    lost = rig.good().gpus[3]
    assert (lost.uuid, lost.pci) == (prod4().gpus[3].uuid, "0000:81:00")
    rig = make(driver_list=tmp_path / "gpus")
    everywhere = prod4().with_fault("nvmlDeviceGetHandleByIndex", LOST)
    rig.world.set(everywhere)
    assert "no GPU reports its UUID" in rig.bad(), "nor can it be said which is which"
    rig = make(driver_list=tmp_path / "gpus")
    two = prod4().with_fault("nvmlDeviceGetUUID", 999, gpu=1)
    rig.world.set(two.with_fault("nvmlDeviceGetUUID", 999, gpu=2))
    assert [gpu.uuid for gpu in rig.good().gpus] == [gpu.uuid for gpu in prod4().gpus], "by PCI"


def test_a_lost_gpu_is_not_guessed_after_the_gpus_were_renumbered(rig: Rig) -> None:
    rig.good()
    world = prod4().renumbered([1, 0, 2, 3]).with_fault("nvmlDeviceGetHandleByIndex", LOST, gpu=3)
    rig.world.set(world)
    inventory = rig.good()
    assert [gpu.index for gpu in inventory.gpus] == [0, 1, 2]
    assert inventory.incomplete.keys() == {3}


# Every call that a sample makes about one GPU, with what its failure means: the GPU has failed,
# nobody knows who uses it, or only a reading is missing.
FAILED, BLIND, UNREAD = "failed", "blind", "unread"
CALLS = {
    "nvmlDeviceGetHandleByIndex": FAILED,
    "nvmlDeviceGetUUID": FAILED,
    "nvmlDeviceGetMigMode": FAILED,
    "nvmlDeviceGetMaxMigDeviceCount": FAILED,
    "nvmlDeviceGetMigDeviceHandleByIndex": FAILED,
    "nvmlDeviceGetComputeRunningProcesses": BLIND,
    "nvmlDeviceGetGraphicsRunningProcesses": BLIND,
    "nvmlDeviceGetPciInfo": UNREAD,
    "nvmlDeviceGetMinorNumber": UNREAD,
    "nvmlDeviceGetName": UNREAD,
    "nvmlDeviceGetGpuInstanceId": UNREAD,
    "nvmlDeviceGetComputeInstanceId": UNREAD,
    "nvmlDeviceGetMemoryInfo": UNREAD,
    "nvmlDeviceGetUtilizationRates": UNREAD,
    "nvmlDeviceGetTemperature": UNREAD,
    "nvmlDeviceGetTotalEccErrors": UNREAD,
    "nvmlDeviceGetRemappedRows": UNREAD,
}
CODES = (2, 3, 4, 6, 7, 8, 10, 11, 13, 14, 17, 19, 20, 21, 23, 25, 27, 28, 29, 999)
NO_ERROR = {  # what these two say where they have nothing to tell
    ("nvmlDeviceGetMigMode", 3),
    ("nvmlDeviceGetMigMode", 13),
    ("nvmlDeviceGetMigDeviceHandleByIndex", 2),
    ("nvmlDeviceGetMigDeviceHandleByIndex", 6),
    ("nvmlDeviceGetGraphicsRunningProcesses", 3),
}


def test_the_calls_are_those_that_the_process_makes() -> None:
    text = Path(worker.__file__).read_text(encoding="utf-8")
    made = set(re.findall(r"nvmlDevice\w+", text))
    made |= {f"nvml{name}" for name in re.findall(r'"(Device\w+)"', text)}
    assert made == {*CALLS, "nvmlDeviceGetCount"}


@pytest.mark.parametrize("function", CALLS)
def test_whatever_one_gpu_answers_concerns_that_gpu_alone(rig: Rig, function: str) -> None:
    calm = prod4().with_process("1.1", 11).with_process("2.1", 12).with_process("0", 13)
    rig.world.set(calm)
    before = rig.good()
    sick = before.gpus[1].uuid
    its = {mig.uuid for mig in before.migs if mig.gpu == sick}
    others = [use for use in before.processes if use.device not in its]
    for code in CODES:
        if (function, code) in NO_ERROR:
            continue
        rig.world.set(calm.with_fault(function, code, gpu=1))
        after = rig.good()
        assert [gpu.uuid for gpu in after.gpus] == [gpu.uuid for gpu in before.gpus]
        assert [mig.uuid for mig in after.migs] == [mig.uuid for mig in before.migs]
        assert [mig.profile for mig in after.migs if mig.gpu != sick] == ["1g.10gb"] * 8
        assert [use for use in after.processes if use.device not in its] == others
        assert after.incomplete == {}
        meant = CALLS[function]
        assert bool(after.gpus[1].failed) == bool(after.gpus[1].health) == (meant is FAILED), code
        blind = {UNREAD: set(), BLIND: its, FAILED: its | {sick}}[meant]
        assert set(after.blind) == blind, code
        if meant is UNREAD:
            assert after.processes == before.processes
        else:
            assert all(function in reason for reason in after.blind.values())
    assert len(rig.started) == 1, "and the process need not be replaced"


@pytest.mark.parametrize("function", [name for name, meant in CALLS.items() if meant is FAILED])
def test_a_gpu_that_was_sick_from_the_start_leaves_the_others_alone(
    rig: Rig, function: str
) -> None:
    for code in CODES:
        if (function, code) in NO_ERROR:
            continue
        rig.world.set(prod4().with_process("2.1", 12).with_fault(function, code, gpu=1))
        inventory = rig.good()
        assert inventory.incomplete.keys() == {1}, code
        assert {gpu.index for gpu in inventory.gpus} >= {0, 2, 3}
        assert {mig.gpu_index for mig in inventory.migs} == {2, 3}
        assert [use.pid for use in inventory.processes] == [12]


@pytest.mark.parametrize(
    ("code", "function", "advice"),
    [
        (4, "nvmlDeviceGetHandleByIndex", "DeviceAllow="),
        (8, "nvmlDeviceGetHandleByIndex", "power"),
        (19, "nvmlDeviceGetUUID", "another program holds it"),
        (27, "nvmlDeviceGetUUID", "not ready"),
        (6, "nvmlDeviceGetHandleByIndex", "reset"),
        (2, "nvmlDeviceGetMaxMigDeviceCount", "MIG layout"),
        (999, "nvmlDeviceGetUUID", "NVRM"),
    ],
)
def test_the_advice_fits_the_error_of_one_gpu(
    rig: Rig, code: int, function: str, advice: str
) -> None:
    rig.fault(function, code, gpu=1)
    assert advice in rig.good().incomplete[1]


def test_one_mig_device_that_does_not_say_its_memory_takes_nothing_along(rig: Rig) -> None:
    rig.world.set(
        prod4().with_process("1.1", 11).with_fault("nvmlDeviceGetMemoryInfo", 999, gpu=1, mig=1)
    )
    inventory = rig.good()
    sizes = [mig.memory_total for mig in inventory.migs if mig.gpu_index == 1]
    assert [size is None for size in sizes] == [False, True, False, False]
    assert (inventory.blind, inventory.incomplete) == ({}, {})
    assert [use.pid for use in inventory.processes] == [11]


@pytest.mark.parametrize("what", ["name", "driver"])
def test_words_that_are_not_utf8_are_unknown_and_no_more(rig: Rig, what: str) -> None:
    world = prod4()
    if what == "driver":
        world = dataclasses.replace(world, driver="535.183.01\udcff")
    else:
        named = dataclasses.replace(world.gpus[1], name="NVIDIA A100\udcae 80GB")
        world = dataclasses.replace(world, gpus=(world.gpus[0], named, *world.gpus[2:]))
    rig.world.set(world)
    inventory = rig.good()
    assert len(inventory.gpus) == 4
    assert len(inventory.migs) == 12
    assert (inventory.blind, inventory.incomplete) == ({}, {})
    assert inventory.gpus[1].name == ("" if what == "name" else "NVIDIA A100 80GB PCIe")
    assert inventory.driver == ("" if what == "driver" else "535.183.01")


def test_every_reading_that_only_informs_may_fail_with_any_error_at_once(rig: Rig) -> None:
    world = prod4().with_process("1.1", 11).with_fault("nvmlSystemGetDriverVersion", 999)
    for number, function in enumerate(name for name, meant in CALLS.items() if meant is UNREAD):
        world = world.with_fault(function, CODES[number])
    rig.world.set(world)
    inventory = rig.good()
    assert [use.pid for use in inventory.processes] == [11]
    assert len(inventory.migs) == 12
    assert [gpu.health for gpu in inventory.gpus] == [()] * 4


# --- a sample that fails ----------------------------------------------------------------------

ERRORS = {
    1: ("Uninitialized", "nvidia-smi"),
    NO_PERMISSION: ("Insufficient Permissions", "root"),
    9: ("Driver Not Loaded", "modprobe"),
    10: ("Timeout", "NVRM"),
    18: ("version mismatch", "reboot"),
    999: ("Unknown Error", "NVRM"),
}


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetUUID", "nvmlShutdown"])
def test_an_error_of_the_driver_is_never_an_empty_inventory(
    rig: Rig, function: str, code: int
) -> None:
    rig.fault(function, code)
    reason = rig.bad()
    words, mend = ERRORS[code]
    assert words in reason
    assert mend in reason
    assert function in reason
    rig.world.set(prod4())
    assert len(rig.good().gpus) == 4
    assert len(rig.started) == 2, "a fresh process: only that loads a new library"
    assert rig.started[0].has_ended


@pytest.mark.parametrize("code", [1, 9, 12, 18])
@pytest.mark.parametrize(
    "function",
    ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMigMode", "nvmlDeviceGetComputeRunningProcesses"],
)
def test_an_error_of_the_driver_concerns_all_gpus_whichever_was_asked(
    rig: Rig, function: str, code: int
) -> None:
    rig.good()
    rig.fault(function, code, gpu=1)
    assert function in rig.bad()


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_unknown_is_unknown_whichever_call_it_befalls(rig: Rig, function: str) -> None:
    rig.fault(function, 999)
    assert "Unknown Error" in rig.bad()


def test_a_missing_library_is_told(make: Callable[..., Rig], tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"")
    rig = make(environment=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)})
    reason = rig.bad()
    assert "NVML Shared Library Not Found" in reason
    assert 'gpu.source = "none"' in reason


def test_a_layout_that_changes_under_the_sample_is_not_known(rig: Rig) -> None:
    rig.world.set(prod4().with_fault("nvmlDeviceGetUUID", 2, gpu=1, mig=2))
    inventory = rig.good()
    assert "changed while it was read" in inventory.incomplete[1]
    assert {mig.gpu_index for mig in inventory.migs} == {2, 3}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("print('NVRM: hello')", "gave an invalid answer"),
        ('print(\'{"gpus": [{"index": "0"}]}\')', "gave an invalid answer"),
        ("import os; os.write(1, bytes([0xff, 10]))", "gave an invalid answer"),
        ("import os\nwhile True: os.write(1, bytes(1 << 20))", "without end"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("import os, time; os.close(1); time.sleep(60)", "closed its output"),
    ],
)
def test_garbage_and_crashes_are_told_and_survived(
    make: Callable[..., Rig], script: str, told: str
) -> None:
    rig = make(command=(sys.executable, "-I", "-S", "-c", f"input()\n{script}"))
    assert told in rig.bad()
    rig.command = COMMAND
    assert rig.good().gpus


def test_a_process_killed_between_samples_is_replaced_unseen(rig: Rig) -> None:
    rig.good()
    os.kill(rig.started[0].pid, signal.SIGKILL)
    assert ended(rig.started[0].pid)
    assert rig.good().gpus
    assert len(rig.started) == 2


def test_a_process_killed_in_a_sample_is_told(rig: Rig) -> None:
    rig.world.set(prod4().with_fault("nvmlDeviceGetName", hang=True))
    rig.sampler.prefetch()
    until(lambda: rig.world.sessions().pids)
    os.kill(rig.started[0].pid, signal.SIGKILL)
    answer = rig.sampler.sample(not_before=Boot(0))
    assert isinstance(answer, Unknown)
    assert "ended by SIGKILL" in answer.reason


def test_a_process_that_does_not_start_is_told(make: Callable[..., Rig]) -> None:
    rig = make(command=("/nonexistent/python",))
    assert "cannot start" in rig.bad()


# --- hanging ----------------------------------------------------------------------------------


def test_the_deadline_holds_and_the_next_sample_has_a_fresh_process(
    make: Callable[..., Rig],
) -> None:
    rig = make(timeout_s=2.0)
    rig.world.set(prod4().with_fault("nvmlDeviceGetMemoryInfo", hang=True))
    begin = time.monotonic()
    assert "timed out after 2 s" in rig.bad()
    assert time.monotonic() - begin < 30, "it hangs for ever"
    assert rig.started[0].has_ended
    rig.world.set(prod4())
    rig.sampler._timeout_s = 20.0
    assert rig.good().gpus
    assert len(rig.started) == 2


class Stuck(NvmlProcess):
    """A process that the kernel holds: SIGKILL does not end it for now."""

    def kill_process(self) -> bool:
        return False


def test_there_is_one_process_at_most_even_if_it_cannot_be_killed(
    make: Callable[..., Rig],
) -> None:
    rig = make(timeout_s=0.5, kind=Stuck)
    rig.world.set(prod4().with_fault("nvmlInit", hang=True))
    assert "timed out" in rig.bad()
    rig.world.set(prod4())
    begin = time.monotonic()
    reasons = {rig.bad() for _ in range(100)}
    assert time.monotonic() - begin < 25, "none of them waits for its 0.5 s"
    (reason,) = reasons
    assert "has been hanging since" in reason
    assert str(rig.started[0].pid) in reason
    assert len(rig.started) == 1
    os.kill(rig.started[0].pid, signal.SIGKILL)
    assert ended(rig.started[0].pid)
    rig.sampler._timeout_s, rig.kind = 20.0, NvmlProcess
    assert rig.good().gpus, "once it is gone, a fresh one is started"
    assert len(rig.started) == 2


@pytest.mark.parametrize("background", [True, False])
def test_close_returns_at_once_whatever_hangs(rig: Rig, background: bool) -> None:
    rig.world.set(prod4().with_fault("nvmlDeviceGetUUID", hang=True))
    answers: list[Inventory | Unknown] = []
    if background:
        rig.sampler.prefetch()
    waiting = threading.Thread(
        target=lambda: answers.append(rig.sampler.sample(not_before=Boot(0)))
    )
    waiting.start()
    until(lambda: rig.world.sessions().pids)
    begin = time.monotonic()
    rig.sampler.close()
    assert time.monotonic() - begin < 15, "before the deadline of the sample"
    waiting.join(60)
    assert [answer.reason for answer in answers if isinstance(answer, Unknown)] == [
        "ds01d is stopping"
    ]
    assert rig.started[0].has_ended
    assert rig.bad() == "ds01d is stopping"
    rig.sampler.prefetch()
    rig.sampler.close()
    assert len(rig.started) == 1


def test_the_process_does_not_outlive_a_killed_parent_even_while_it_hangs(
    nvml_world: NvmlWorld,
) -> None:
    nvml_world.set(prod4().with_fault("nvmlInit", hang=True))
    script = (
        "from ds01d.adapters.nvml.worker_process import NvmlProcess\n"
        "import os\n"
        "process = NvmlProcess()\n"
        "print(process.pid, flush=True)\n"
        "process.ask(timeout_s=60, stop=0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=nvml_world.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        handle = os.pidfd_open(child)
        parent.kill()
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)


# --- one sample for all -----------------------------------------------------------------------


def test_a_sample_begun_late_enough_is_used_again(rig: Rig) -> None:
    first = rig.sampler.sample(not_before=Boot(0))
    assert rig.sampler.sample(not_before=Boot(1)) is first
    assert rig.sampler.sample(not_before=Boot(1.5)) is not first
    assert rig.world.sessions().opened == 2


def test_a_failed_sample_is_not_repeated_for_the_same_moment(rig: Rig) -> None:
    rig.fault("nvmlInit", 9)
    first = rig.sampler.sample(not_before=Boot(0))
    assert rig.sampler.sample(not_before=Boot(1)) is first
    assert len(rig.started) == 1


def test_calls_at_once_share_one_sample_and_so_does_a_prefetch(rig: Rig) -> None:
    rig.world.set(prod4().with_fault("nvmlDeviceGetCount", delay_ms=100))
    answers: list[Inventory | Unknown] = []
    rig.sampler.prefetch()
    rig.sampler.prefetch()
    threads = [
        threading.Thread(target=lambda: answers.append(rig.sampler.sample(not_before=Boot(1))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 8
    assert len({id(answer) for answer in answers}) == 1
    assert rig.world.sessions().opened == 1
    assert len(rig.started) == 1


def test_samples_never_overlap(rig: Rig) -> None:
    rig.world.set(prod4().with_fault("nvmlDeviceGetCount", delay_ms=10))
    threads = [threading.Thread(target=rig.good) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    sessions = rig.world.sessions()
    assert (sessions.opened, sessions.peak) == (8, 1)
    assert len(rig.started) == 1


def test_an_interrupted_sample_does_not_answer_the_next(rig: Rig) -> None:
    class Interrupted(NvmlProcess):
        def request_sample(
            self, *, timeout_s: float, stop: int, meanwhile: Callable[[], None] = lambda: None
        ) -> bytes | NoAnswer:
            super().request_sample(timeout_s=0, stop=stop, meanwhile=meanwhile)
            raise KeyboardInterrupt

    rig.kind = Interrupted
    with pytest.raises(KeyboardInterrupt):
        rig.sample()
    rig.kind = NvmlProcess
    rig.world.set(prod4().shrunk(1))
    assert len(rig.good().gpus) == 1
    assert len(rig.started) == 2


# --- the process itself -----------------------------------------------------------------------


def status_of(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_the_process_is_small_and_lets_signals_through(rig: Rig) -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        for _ in range(20):
            rig.good()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    status = status_of(rig.started[0].pid)
    assert int(status["SigBlk"], 16) == 0
    assert int(status["VmRSS"].split()[0]) < 26 * 1024
    assert Path(f"/proc/{rig.started[0].pid}/cwd").readlink() == Path("/")


@pytest.mark.gpu
def test_a_real_gpu_is_told_as_nvidia_smi_tells_it_and_let_go(make: Callable[..., Rig]) -> None:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("needs a GPU")
    rig = make(environment=os.environ, timeout_s=60.0)
    inventory = rig.good()
    query = ["nvidia-smi", "--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader"]
    rows = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    told = [tuple(row.split(", ")) for row in rows]
    assert told == [
        (str(gpu.index), gpu.uuid, f"0000{gpu.pci}.0".upper()) for gpu in inventory.gpus
    ]
    assert all(gpu.memory_total for gpu in inventory.gpus)
    files = Path(f"/proc/{rig.started[0].pid}/fd").iterdir()
    assert not [file for file in files if "/dev/nvidia" in str(file.readlink())]
    assert rig.good().driver == inventory.driver
    assert len(rig.started) == 1
