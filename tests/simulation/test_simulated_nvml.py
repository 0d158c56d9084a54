"""The simulated NVML under the real pynvml: it answers, and fails, as NVML does."""

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulation import nvml
from simulation.nvml.world import GIB, SimGpu, SimMig, SimProcess, World, full, prod4
from tests.support.fixtures import NvmlWorld

HEAD = """
import sys, pathlib
from pynvml import *
def tell(value): print(repr(value), flush=True)
def code(call, *arguments):
    try:
        return ("ok", call(*arguments))
    except NVMLError as error:
        return (type(error).__name__.removeprefix("NVMLError_"), error.value)
def gpu(index): return nvmlDeviceGetHandleByIndex(index)
def mig(index, at): return nvmlDeviceGetMigDeviceHandleByIndex(gpu(index), at)
def pids(handle):
    rows = nvmlDeviceGetComputeRunningProcesses(handle)
    return [(row.pid, row.usedGpuMemory, row.gpuInstanceId, row.computeInstanceId) for row in rows]
"""
NO_INSTANCE = 0xFFFFFFFF


def start(world: NvmlWorld, script: str, lib: Path | None = None) -> subprocess.Popen[str]:
    """Start a process with the real pynvml over the simulated library."""
    environment = replace(world, lib=lib or world.lib).env
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(world: NvmlWorld, script: str, lib: Path | None = None) -> Any:
    """Run a script to its end and return what it told last."""
    with start(world, script, lib) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return ast.literal_eval(output.splitlines()[-1])


def ask_while(world: NvmlWorld, before: str, change: Callable[[], None], after: str) -> Any:
    """Run `before`, change the world behind the open session, run `after`; return what it told."""
    with start(world, f"{before}\nprint('ready', flush=True)\ninput()\n{after}") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        change()
        output, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    return ast.literal_eval(output.splitlines()[-1])


def blocks(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process blocks a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))
    return bool(mask >> (number - 1) & 1)


LAYOUT = """
nvmlInit()
found = {}
for index in range(nvmlDeviceGetCount()):
    handle = gpu(index)
    count = nvmlDeviceGetMaxMigDeviceCount(handle)
    found[str(index)] = nvmlDeviceGetUUID(handle)
    for at in range(count):
        answer, device = code(nvmlDeviceGetMigDeviceHandleByIndex, handle, at)
        assert answer in ("ok", "NotFound"), answer
        if answer == "ok":
            found[f"{index}.{at}"] = nvmlDeviceGetUUID(device)
nvmlShutdown()
tell(found)
"""


def test_it_shows_the_layout_of_the_recorded_states(nvml_world: NvmlWorld) -> None:
    found = ask(nvml_world, LAYOUT)
    assert prod4().slots().items() <= found.items()
    assert len(found) == 4 + 12


def test_indices_may_leave_gaps_and_a_gpu_instance_may_be_0(nvml_world: NvmlWorld) -> None:
    migs = (
        SimMig(uuid="MIG-a", index=0, gi=0, profile="3g.40gb"),
        SimMig(uuid="MIG-b", index=5, gi=2, ci=1),
    )
    nvml_world.set(World(gpus=(SimGpu(uuid="GPU-a", minor=3, pci_bus=7, mig=True, migs=migs),)))
    assert ask(nvml_world, LAYOUT) == {"0": "GPU-a", "0.0": "MIG-a", "0.5": "MIG-b"}
    ids = "nvmlInit(); ids = [nvmlDeviceGetGpuInstanceId, nvmlDeviceGetComputeInstanceId]\n"
    assert ask(nvml_world, ids + "tell([f(m) for m in (mig(0, 0), mig(0, 5)) for f in ids])") == [
        0,
        0,
        2,
        1,
    ]


def test_a_device_says_what_it_is(nvml_world: NvmlWorld) -> None:
    script = """
nvmlInit()
one, cut = gpu(0), gpu(2)
part = mig(2, 3)
tell({
    "driver": nvmlSystemGetDriverVersion(),
    "nvml": nvmlSystemGetNVMLVersion(),
    "cuda": (nvmlSystemGetCudaDriverVersion(), nvmlSystemGetCudaDriverVersion_v2()),
    "name": (nvmlDeviceGetName(cut), nvmlDeviceGetName(part)),
    "bus": nvmlDeviceGetPciInfo(cut).busId,
    "minor": nvmlDeviceGetMinorNumber(cut),
    "index": (nvmlDeviceGetIndex(cut), nvmlDeviceGetIndex(part)),
    "modes": (nvmlDeviceGetMigMode(one), nvmlDeviceGetMigMode(cut)),
    "most": (nvmlDeviceGetMaxMigDeviceCount(one), nvmlDeviceGetMaxMigDeviceCount(cut)),
    "is mig": (nvmlDeviceIsMigDeviceHandle(cut).value, nvmlDeviceIsMigDeviceHandle(part).value),
    "parent": nvmlDeviceGetIndex(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)),
    "by uuid": nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID(part))),
    "memory": [nvmlDeviceGetMemoryInfo(part).total,
               nvmlDeviceGetMemoryInfo(cut, nvmlMemory_v2).total],
    "attributes": nvmlDeviceGetAttributes(part).memorySizeMB,
    "ecc": (nvmlDeviceGetEccMode(one), nvmlDeviceGetTotalEccErrors(one, 1, 0)),
    "temperature": nvmlDeviceGetTemperature(cut, 0),
    "persistence": nvmlDeviceGetPersistenceMode(cut),
    "remapped": nvmlDeviceGetRemappedRows(one),
    "utilization": nvmlDeviceGetUtilizationRates(one).gpu,
})
"""
    a100 = "NVIDIA A100 80GB PCIe"
    assert ask(nvml_world, script) == {
        "driver": "535.183.01",
        "nvml": "12.535.183.01",
        "cuda": (12020, 12020),
        "name": (a100, f"{a100} MIG 1g.10gb"),
        "bus": "00000000:61:00.0",
        "minor": 2,
        "index": (2, 3),
        "modes": ([0, 0], [1, 1]),
        "most": (0, 7),
        "is mig": (0, 1),
        "parent": 2,
        "by uuid": 3,
        "memory": [10 * GIB, 80 * GIB],
        "attributes": 10 << 10,
        "ecc": ([1, 1], 0),
        "temperature": 31,
        "persistence": 1,
        "remapped": (0, 0, 0, 0),
        "utilization": 0,
    }


def test_what_mig_and_older_gpus_forbid_is_not_supported(nvml_world: NvmlWorld) -> None:
    plain = SimGpu(uuid="GPU-x", minor=9, pci_bus=9, mig=None, ecc_errors=None, remapped_rows=None)
    nvml_world.set(replace(prod4(), gpus=(*prod4().gpus, plain)))
    script = """
nvmlInit()
tell([
    code(nvmlDeviceGetUtilizationRates, gpu(1)),
    code(nvmlDeviceGetUtilizationRates, mig(1, 0)),
    code(nvmlDeviceGetRemappedRows, gpu(1)),
    code(nvmlDeviceGetMinorNumber, mig(1, 0)),
    code(nvmlDeviceGetGpuInstanceId, gpu(1)),
    code(nvmlDeviceGetMigMode, gpu(4)),
    code(nvmlDeviceGetEccMode, gpu(4)),
    code(nvmlDeviceGetTotalEccErrors, gpu(4), 1, 0),
    code(nvmlDeviceGetRemappedRows, gpu(4)),
])
"""
    assert ask(nvml_world, script) == [("NotSupported", 3)] * 9


def test_processes_belong_to_their_device_and_their_gpu(nvml_world: NvmlWorld) -> None:
    many = prod4()
    for pid in range(5000, 5050):
        many = many.with_process("3.1", pid)
    nvml_world.set(
        many.with_process("0", 41, 3 * GIB)
        .with_process("1.2", 42, None)
        .with_process("1.2", 43, graphics=True)
    )
    script = """
nvmlInit()
tell([pids(gpu(0)), pids(gpu(1)), pids(mig(1, 2)), pids(mig(1, 1)), pids(gpu(2)),
      [row.pid for row in nvmlDeviceGetGraphicsRunningProcesses(mig(1, 2))],
      len(pids(mig(3, 1))), nvmlDeviceGetMemoryInfo(gpu(0)).used])
"""
    unknown = (42, None, 9, 0)
    assert ask(nvml_world, script) == [
        [(41, 3 * GIB, NO_INSTANCE, NO_INSTANCE)],
        [unknown],
        [unknown],
        [],
        [],
        [43],
        50,
        3 * GIB,
    ]
    assert ask(nvml_world, "nvmlInit(); tell(pids(mig(1, 2)))") == [unknown]
    nvml_world.set(many.without_process(5000))
    assert ask(nvml_world, "nvmlInit(); tell(len(pids(gpu(3))))") == 49


def test_a_buffer_can_be_too_small(nvml_world: NvmlWorld) -> None:
    nvml_world.set(prod4().with_process("0", 41).with_process("0", 42).with_process("0", 43))
    script = """
import ctypes, pynvml
nvmlInit()
handle, lib, count = gpu(0), pynvml.nvmlLib, ctypes.c_uint(2)
two = (pynvml.c_nvmlProcessInfo_v3_t * 2)()
text = ctypes.create_string_buffer(8)
tell([
    lib.nvmlDeviceGetComputeRunningProcesses_v3(handle, ctypes.byref(count), two), count.value,
    lib.nvmlDeviceGetComputeRunningProcesses_v3(handle, ctypes.byref(count), None),
    lib.nvmlDeviceGetUUID(handle, text, ctypes.c_uint(8)), text.value,
])
"""
    assert ask(nvml_world, script) == [7, 3, 2, 7, b""]


def test_nothing_works_outside_a_session(nvml_world: NvmlWorld) -> None:
    script = """
try: nvmlInit(); handle = gpu(0); part = mig(1, 0)
finally: nvmlShutdown()
after = [code(nvmlDeviceGetCount), code(nvmlDeviceGetUUID, handle), code(nvmlShutdown)]
nvmlInit()
tell([*after, code(nvmlDeviceGetUUID, handle), code(nvmlDeviceGetUUID, part), nvmlDeviceGetCount()])
"""
    closed, stale = ("Uninitialized", 1), ("InvalidArgument", 2)
    assert ask(nvml_world, script) == [closed, closed, closed, stale, stale, 4]


def test_the_mig_view_is_frozen_and_a_destroyed_device_is_gone(nvml_world: NvmlWorld) -> None:
    uuids = "[code(nvmlDeviceGetUUID, device)[0] for device in (first, second, gpu(1))]"
    count = "[code(mig, 1, at)[0] for at in range(5)]"
    told = ask_while(
        nvml_world,
        "nvmlInit(); first, second = mig(1, 0), mig(1, 1)",
        lambda: nvml_world.set(prod4().without_device("1.1").with_process("1.0", 44)),
        f"tell([{uuids}, {count}, pids(first)[0][0]])",
    )
    assert told == [["ok", "InvalidArgument", "ok"], ["ok"] * 4 + ["NotFound"], 44]
    nvml_world.set(prod4().without_device("1.1"))
    old = prod4().slots()["1.0"]
    told = ask_while(
        nvml_world,
        f"nvmlInit(); new = {prod4().recreated(1).slots()['1.0']!r}",
        lambda: nvml_world.set(prod4().recreated(1)),
        f"""seen = code(nvmlDeviceGetHandleByUUID, new)[0]
nvmlShutdown(); nvmlInit()
tell([seen, nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID(new)),
      code(nvmlDeviceGetHandleByUUID, {old!r})])""",
    )
    assert told == ["NotFound", 0, ("NotFound", 6)]


def test_a_gpu_that_falls_off_the_bus_is_lost(nvml_world: NvmlWorld) -> None:
    told = ask_while(
        nvml_world,
        "nvmlInit(); last = gpu(3)",
        lambda: nvml_world.set(prod4().shrunk(3)),
        "tell([code(nvmlDeviceGetUUID, last), code(gpu, 3)[0], nvmlDeviceGetCount()])",
    )
    assert told == [("GpuIsLost", 15), "GpuIsLost", 4]
    assert ask(nvml_world, "nvmlInit(); tell(nvmlDeviceGetCount())") == 3


@pytest.mark.parametrize("code", [1, 9, 12, 18, 999])
def test_init_can_fail(nvml_world: NvmlWorld, code: int) -> None:
    nvml_world.set(prod4().with_fault("nvmlInit", code))
    assert ask(nvml_world, "tell(code(nvmlInit)[1])") == code
    assert nvml_world.sessions().opened == 0


def test_no_library_and_no_driver(nvml_world: NvmlWorld, tmp_path: Path) -> None:
    empty = nvml.build(tmp_path / "lib", process_lists=False)
    (empty / "libnvidia-ml.so.1").write_bytes(b"")
    assert ask(nvml_world, "tell(code(nvmlInit))", empty) == ("LibraryNotFound", 12)
    nvml_world.path.write_text("nonsense\n")
    assert ask(nvml_world, "tell(code(nvmlInit))") == ("Unknown", 999)
    nvml_world.path.unlink()
    assert ask(nvml_world, "tell(code(nvmlInit))") == ("Unknown", 999)
    assert ask(nvml_world, "import os; os.unsetenv('DS01_SIM_NVML'); tell(code(nvmlInit))") == (
        "DriverNotLoaded",
        9,
    )


def test_a_fault_befalls_one_gpu_or_one_mig_device_or_all(nvml_world: NvmlWorld) -> None:
    nvml_world.set(
        prod4()
        .with_fault("*", 15, gpu=1)
        .with_fault("nvmlDeviceGetMemoryInfo_v2", 16, gpu=2)
        .with_fault("nvmlDeviceGetName", 999, gpu=3, mig=2)
        .with_fault("nvmlDeviceGetTemperature", 4)
    )
    script = """
nvmlInit()
tell([
    [code(gpu, index)[0] for index in range(4)],
    [code(nvmlDeviceGetMemoryInfo, gpu(index))[0] for index in (0, 2, 3)],
    [code(nvmlDeviceGetName, mig(3, at))[0] for at in range(4)],
    [code(nvmlDeviceGetTemperature, gpu(index), 0)[0] for index in (0, 2, 3)],
])
"""
    assert ask(nvml_world, script) == [
        ["ok", "GpuIsLost", "ok", "ok"],
        ["ok", "ResetRequired", "ok"],
        ["ok", "ok", "Unknown", "ok"],
        ["NoPermission"] * 3,
    ]


def test_the_first_calls_fail_over_all_processes(nvml_world: NvmlWorld) -> None:
    nvml_world.set(prod4().with_fault("nvmlInit", 999, first=3))
    script = "tell([code(nvmlInit)[0] for _ in range(2)])"
    assert ask(nvml_world, script) == ["Unknown", "Unknown"]
    assert ask(nvml_world, script) == ["Unknown", "ok"]


def test_lists_can_be_empty_for_a_moment(nvml_world: NvmlWorld) -> None:
    nvml_world.set(
        prod4()
        .with_process("0", 41)
        .with_fault("nvmlDeviceGetCount", empty=True, first=1)
        .with_fault("nvmlDeviceGetComputeRunningProcesses", empty=True, gpu=0, first=1)
        .with_fault("nvmlDeviceGetMigDeviceHandleByIndex", empty=True, gpu=1)
    )
    script = """
nvmlInit()
tell([nvmlDeviceGetCount(), nvmlDeviceGetCount(), len(pids(gpu(0))), len(pids(gpu(0))),
      code(mig, 1, 0)[0], code(mig, 2, 0)[0]])
"""
    assert ask(nvml_world, script) == [0, 4, 0, 1, "NotFound", "ok"]


def test_a_call_can_be_late(nvml_world: NvmlWorld) -> None:
    nvml_world.set(prod4().with_fault("nvmlInit", delay_ms=3000, first=1))
    script = """
import time
def took():
    start = time.monotonic(); nvmlInit(); return time.monotonic() - start
tell([took() >= 3.0, took() < 3.0])
"""
    assert ask(nvml_world, script) == [True, True]


def test_a_call_that_hangs_ends_only_with_sigkill(nvml_world: NvmlWorld) -> None:
    nvml_world.set(prod4().with_fault("nvmlDeviceGetCount", hang=True))
    with start(nvml_world, "nvmlInit(); tell('in'); nvmlDeviceGetCount()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "'in'\n"
        deadline = time.monotonic() + 10
        while not blocks(process.pid, signal.SIGTERM):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
        assert nvml_world.sessions().pids == (process.pid,)
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert nvml_world.sessions().pids == ()


def test_an_older_library_lacks_the_process_lists(nvml_world: NvmlWorld) -> None:
    older = nvml.build(process_lists=False)
    script = """
import pynvml
nvmlInit()
try: pids(gpu(0))
except pynvml.NVMLLibraryMismatchError as error: mismatch = not isinstance(error, NVMLError)
tell([mismatch, code(nvmlDeviceGetComputeRunningProcesses_v3, gpu(0)), nvmlDeviceGetCount()])
"""
    assert ask(nvml_world, script, older) == [True, ("FunctionNotFound", 13), 4]


def test_sessions_are_counted_while_they_are_open(nvml_world: NvmlWorld) -> None:
    assert nvml_world.sessions() == nvml.Sessions(pids=(), opened=0, peak=0)
    with start(nvml_world, "nvmlInit(); nvmlInit(); tell(1); input(); nvmlShutdown()") as first:
        assert first.stdout is not None
        first.stdout.readline()
        assert nvml_world.sessions().pids == (first.pid,)
        ask(nvml_world, "nvmlInit(); nvmlShutdown(); tell(0)")
        assert nvml_world.sessions() == nvml.Sessions(pids=(first.pid,), opened=2, peak=2)
        first.communicate("\n", timeout=60)
    assert nvml_world.sessions() == nvml.Sessions(pids=(), opened=2, peak=2)


def test_worlds_are_values(tmp_path: Path) -> None:
    world = prod4()
    assert list(full(2).slots()) == ["0", "1"]
    assert world.renumbered([3, 0, 1, 2]).slots()["0.0"] == world.slots()["3.0"]
    assert world.migs_renumbered(1, {0: 1, 1: 0}).slots()["1.0"] == world.slots()["1.1"]
    assert list(world.without_mig().slots()) == ["0", "1", "2", "3"]
    assert list(world.without_mig(1).slots())[:3] == ["0", "1", "2.0"]
    new, old = world.recreated(2).slots(), world.slots()
    assert {slot for slot in old if old[slot] != new[slot]} == {"2.0", "2.1", "2.2", "2.3"}
    assert world.recreated(2) == world.recreated(2) != world
    assert world.with_process("0", 1).gpus[0].processes == (SimProcess(pid=1, memory=GIB),)
    assert world.with_fault("*", 15).without_faults() == world
    with pytest.raises(ValueError, match="no function"):
        world.with_fault("nvmlDeviceGetCounts", 1)
    with pytest.raises(ValueError, match="one of"):
        world.with_fault("nvmlDeviceGetCount", 1, hang=True)
    world.write(tmp_path / "world")
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
