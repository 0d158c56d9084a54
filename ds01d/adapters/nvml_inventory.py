"""Makes an inventory of what the NVML process answered, or says why that cannot be done.

It asks no GPU anything: names of processes come from /proc right after the answer, the identity of
a GPU that no longer says who it is comes from the sample before or from the driver's list. It
judges only what a reading means; whether an inventory is plausible is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from ds01d.adapters.kernel_faults import pci_address
from ds01d.adapters.nvml_answer import Answer, Failure, GpuReading, MigReading, Use
from ds01d.adapters.processes import Process
from ds01d.model.devices import Gpu, GpuProcess, Inventory, MigDevice
from ds01d.model.facts import Boot, DeviceUuid, Source, Unknown

DRIVER_LIST = Path("/proc/driver/nvidia/gpus")

# What an administrator can do, by NVML's code.
_ADVICE: Mapping[int | None, str] = {
    2: "the MIG layout probably changed while it was read; the next sample will tell",
    4: "ds01d has to be root and its unit must allow char-nvidia",
    6: "the MIG layout probably changed while it was read; the next sample will tell",
    9: "load the driver (modprobe nvidia) and look at the kernel's log for NVRM; "
    'a host without NVIDIA\'s driver wants gpu.source = "none"',
    12: "install the driver's libnvidia-ml.so.1; "
    'a host without NVIDIA\'s driver wants gpu.source = "none"',
    13: "the driver is too old for this nvidia-ml-py: upgrade the driver",
    17: "the unit's sandbox blocks the driver's devices, see DeviceAllow=",
    18: "the driver was upgraded while the old one is loaded: reboot, or reload its modules",
    20: "not enough memory on this host",
    None: "if the driver is older than nvidia-ml-py expects, upgrade it",
}
_OTHERWISE = "run nvidia-smi and look at the kernel's log for NVRM"


class Interpreter:
    """Reads one answer after the other, and remembers the last inventory for a GPU that gets lost.

    `find_processes` maps pids to what is known of them; a process that is gone is missing.
    """

    def __init__(
        self,
        *,
        find_processes: Callable[[Iterable[int]], Mapping[int, Process]],
        driver_list: Path = DRIVER_LIST,
    ) -> None:
        self._find_processes = find_processes
        self._driver_list = driver_list
        self._before: Inventory | None = None

    def read(self, line: bytes, *, begun: Boot) -> Inventory | Unknown:
        """Understand an answer to a sample that began at `begun`."""
        try:
            answer = msgspec.json.decode(line, type=Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _unknown(f"NVML's process answered something else: {error}")
        if answer.failure:
            return _unknown(explain(answer.failure))
        if not self._identify(answer.gpus):
            failed = ", ".join(f"{gpu.index} ({gpu.failed})" for gpu in answer.gpus if not gpu.uuid)
            return _unknown(
                f"NVML cannot tell which GPU is at index {failed}, and nothing else can: "
                "reset it (nvidia-smi --gpu-reset), or reboot"
            )
        self._before = self._inventory(answer, begun)
        return self._before

    def _inventory(self, answer: Answer, begun: Boot) -> Inventory:
        gpus: list[Gpu] = []
        migs: list[MigDevice] = []
        blind: dict[DeviceUuid, str] = {}
        uses: list[tuple[DeviceUuid, Use]] = []
        for reading in answer.gpus:
            self._recall(reading)
            gpu = _gpu(reading)
            gpus.append(gpu)
            for mig in reading.migs or ():
                migs.append(_mig(mig, gpu))
                blind |= _blind(mig.uuid, mig.blind or ("" if reading.listed else reading.failed))
                uses += _uses(mig.uuid, mig.uses)
            blind |= _blind(gpu.uuid, reading.blind or ("" if reading.listed else reading.failed))
            uses += _uses(gpu.uuid, reading.uses)
        return Inventory(
            gpus=tuple(gpus),
            migs=tuple(migs),
            processes=tuple(self._processes(uses)),
            blind=blind,
            sampled_at=begun,
            driver=answer.driver,
        )

    def _processes(self, uses: list[tuple[DeviceUuid, Use]]) -> Iterator[GpuProcess]:
        found = self._find_processes({use.pid for _, use in uses})
        for device, use in uses:
            if process := found.get(use.pid):
                yield GpuProcess(
                    pid=use.pid,
                    device=device,
                    container=process.container,
                    user=process.user,
                    command=process.command,
                    memory=use.memory,
                )

    # A GPU that fell off the bus has no handle, and so no UUID; but it is still counted. Neither it
    # nor its MIG devices must look as if they did not exist.

    def _recall(self, failed: GpuReading) -> None:
        """Let what a failed GPU did not tell be as it was in the sample before."""
        if failed.migs is not None or self._before is None:
            return
        for gpu in self._before.gpus:
            if gpu.uuid == failed.uuid:
                failed.pci = failed.pci or gpu.pci
                failed.minor = gpu.minor if failed.minor is None else failed.minor
                failed.name = failed.name or gpu.name
                failed.mig = gpu.mig
        failed.migs = [
            MigReading(index=mig.index, uuid=mig.uuid, profile=mig.profile, gi=mig.gi, ci=mig.ci)
            for mig in self._before.migs
            if mig.gpu == failed.uuid
        ]

    def _identify(self, readings: list[GpuReading]) -> bool:
        """Fill in who the nameless GPUs are. False if that cannot be said for certain."""
        nameless = [gpu for gpu in readings if gpu.uuid is None]
        if not nameless:
            return True
        before = {gpu.index: gpu.uuid for gpu in self._before.gpus} if self._before else {}
        if len(before) == len(readings) and all(
            gpu.uuid in (None, before.get(gpu.index)) for gpu in readings
        ):
            for gpu in nameless:
                gpu.uuid = before[gpu.index]
            return True
        told = {gpu.uuid for gpu in readings}
        untold = {uuid: pci for pci, uuid in _driver_list(self._driver_list) if uuid not in told}
        if len(nameless) == len(untold) == 1:
            ((nameless[0].uuid, nameless[0].pci),) = untold.items()
            return True
        return False


def _driver_list(folder: Path) -> Iterator[tuple[str, str]]:
    """PCI address and UUID of each GPU that the driver knows, whether NVML can open it or not."""
    try:
        for entry in folder.iterdir():
            for line in (entry / "information").read_text(errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "GPU UUID" and "?" not in value:
                    yield entry.name, value.strip()
    except OSError:
        return


def _gpu(reading: GpuReading) -> Gpu:
    return Gpu(
        uuid=DeviceUuid(reading.uuid or ""),
        index=reading.index,
        minor=reading.minor,
        pci=pci_address(reading.pci),
        name=reading.name,
        mig=reading.mig,
        health=tuple(_health(reading)),
        failed=reading.failed,
        memory_used=reading.memory_used,
        memory_total=reading.memory_total,
        utilization=reading.utilization,
        temperature=reading.temperature,
    )


def _health(reading: GpuReading) -> Iterator[str]:
    if reading.failed:
        yield reading.failed
    if reading.ecc_errors:
        yield f"{reading.ecc_errors} uncorrected ECC errors since the driver was loaded"
    if reading.remap_pending:
        yield "rows of its memory wait for a reset to be remapped"
    if reading.remap_failed:
        yield "a row of its memory could not be remapped"


def _mig(reading: MigReading, gpu: Gpu) -> MigDevice:
    return MigDevice(
        uuid=DeviceUuid(reading.uuid),
        gpu=gpu.uuid,
        gpu_index=gpu.index,
        index=reading.index,
        profile=reading.profile,
        gi=reading.gi,
        ci=reading.ci,
        memory_used=reading.memory_used,
        memory_total=reading.memory_total,
    )


def _blind(device: str, reason: str) -> dict[DeviceUuid, str]:
    return {DeviceUuid(device): f"its processes cannot be listed: {reason}"} if reason else {}


def _uses(device: str, uses: list[Use]) -> list[tuple[DeviceUuid, Use]]:
    return [(DeviceUuid(device), use) for use in uses]


def explain(failure: Failure) -> str:
    """Say what failed, and what an administrator can do."""
    advice = _ADVICE.get(failure.code, _OTHERWISE)
    return f"NVML: {failure.words} ({failure.call}); {advice}"


def _unknown(reason: str) -> Unknown:
    return Unknown(source=Source.NVML, reason=reason)
