"""Builds an inventory from an answer of the NVML process, or the reason why it cannot.

It asks no GPU anything: names of processes come from /proc right after the answer, the identity of
a GPU that no longer reports its UUID comes from the sample before or from the driver's list. It
judges only what a reading means; whether an inventory is plausible is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from ds01d.adapters.host.processes import PID_MAX_LIMIT, Process
from ds01d.adapters.nvml.error_advice import describe_failure, explain_failure, explain_for_gpu
from ds01d.adapters.nvml.protocol import Answer, GpuReading, MigReading, Use
from ds01d.adapters.nvml.reading_checks import (
    distrust_mig_mode,
    distrust_part_of_mig,
    find_corruption,
)
from ds01d.adapters.nvml.xid_journal import pci_address
from ds01d.model.devices import Gpu, GpuProcess, Inventory, MigDevice
from ds01d.model.primitives import Boot, DeviceUuid, Source, Unknown

DRIVER_LIST = Path("/proc/driver/nvidia/gpus")


class Interpreter:
    """Reads one answer after the other, and remembers the last inventory for a GPU that fails.

    `find_processes` maps pids to what is known of them; one that /proc does not have is missing.
    `pid_max` gives the largest pid that the kernel gives. `unconfirmed`: in the answer read last
    there was a process that /proc does not have, for the first time.
    """

    def __init__(
        self,
        *,
        find_processes: Callable[[Iterable[int]], Mapping[int, Process]],
        pid_max: Callable[[], int] = lambda: PID_MAX_LIMIT,
        driver_list: Path = DRIVER_LIST,
    ) -> None:
        self._find_processes = find_processes
        self._pid_max = pid_max
        self._driver_list = driver_list
        self._before: Inventory | None = None
        self._missing: frozenset[tuple[DeviceUuid, int]] = frozenset()
        self.unconfirmed = False

    def read(self, line: bytes, *, begun: Boot) -> Inventory | Unknown:
        """Understand an answer to a sample that began at `begun`."""
        self.unconfirmed = False
        try:
            answer = msgspec.json.decode(line, type=Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _make_unknown(f"the NVML process gave an invalid answer: {error}")
        if answer.failure:
            return _make_unknown(explain_failure(answer.failure))
        for reading in answer.gpus:
            distrust_mig_mode(reading)
            distrust_part_of_mig(reading)
        # Before anything is built: slots, holders and processes all hang on UUIDs.
        self._identify_gpus(answer.gpus)
        if answer.gpus and all(gpu.uuid is None for gpu in answer.gpus):
            failed = next(gpu.failure for gpu in answer.gpus if gpu.failure)
            return _make_unknown(f"no GPU reports its UUID: {explain_failure(failed)}")
        inventory = self._build_inventory(answer, begun)
        # Only a whole one may stand in for a GPU that fails later.
        if not inventory.incomplete:
            self._before = inventory
        return inventory

    def _build_inventory(self, answer: Answer, begun: Boot) -> Inventory:
        gpus: list[Gpu] = []
        migs: list[MigDevice] = []
        blind: dict[DeviceUuid, str] = {}
        incomplete: dict[int, str] = {}
        uses: list[tuple[DeviceUuid, Use]] = []
        pid_max = self._pid_max()
        for reading in answer.gpus:
            if reading.uuid is None or not self._restore_reading(reading):
                incomplete[reading.index] = _explain_reading(reading)
            if reading.uuid is None:
                continue
            gpu = _build_gpu(reading)
            gpus.append(gpu)
            migs += [_build_mig(mig, gpu) for mig in reading.migs or ()]
            for device in (reading, *(reading.migs or ())):
                uuid = DeviceUuid(device.uuid or "")
                if reason := _explain_blind(device, reading, pid_max):
                    blind[uuid] = f"its processes cannot be listed: {reason}"
                # What a GPU with MIG lists itself is listed by its MIG devices too.
                elif device is not reading or not reading.mig:
                    uses += [(uuid, use) for use in device.uses]
        return Inventory(
            gpus=tuple(gpus),
            migs=tuple(migs),
            processes=tuple(self._list_processes(uses)),
            blind=blind,
            incomplete=incomplete,
            sampled_at=begun,
            driver=answer.driver,
        )

    def _list_processes(self, uses: list[tuple[DeviceUuid, Use]]) -> Iterator[GpuProcess]:
        """Every process that is listed, also one that /proc does not have."""
        # It may have ended just now: the next answer shows. Or its pid is one of another PID
        # namespace, or it ended and something that holds its GPU context did not: then the device
        # is in use, and by whom is unknown.
        processes = self._find_processes({use.pid for _, use in uses})
        missing = frozenset((device, use.pid) for device, use in uses if use.pid not in processes)
        self.unconfirmed = bool(missing - self._missing)
        self._missing = missing
        for device, use in uses:
            process = processes.get(use.pid) or Process(
                container=_make_unknown(f"NVML lists process {use.pid}, which /proc does not have")
            )
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

    def _restore_reading(self, failed: GpuReading) -> bool:
        """Complete the reading of a failed GPU from the sample before. False: not known."""
        # decision 62: a GPU must not look as if it, or its MIG devices, did not exist.
        if failed.migs is not None:
            return True
        before = self._before or Inventory(gpus=())
        cached = next((gpu for gpu in before.gpus if gpu.uuid == failed.uuid), None)
        if cached is None:
            return False
        failed.pci = failed.pci or cached.pci
        failed.minor = cached.minor if failed.minor is None else failed.minor
        failed.name = failed.name or cached.name
        failed.mig = cached.mig
        failed.migs = [
            MigReading(index=mig.index, uuid=mig.uuid, profile=mig.profile, gi=mig.gi, ci=mig.ci)
            for mig in before.migs
            if mig.gpu == failed.uuid
        ]
        return True

    def _identify_gpus(self, readings: list[GpuReading]) -> None:
        """Fill in the UUIDs of GPUs that do not report one, as far as they are certain."""
        nameless = [gpu for gpu in readings if gpu.uuid is None]
        if not nameless:
            return
        # Indices may be renumbered; they count only where all others still fit.
        before = {gpu.index: gpu.uuid for gpu in self._before.gpus} if self._before else {}
        if before.keys() == {gpu.index for gpu in readings} and all(
            gpu.uuid in (None, before.get(gpu.index)) for gpu in readings
        ):
            for gpu in nameless:
                gpu.uuid = before[gpu.index]
            return
        named = {gpu.uuid for gpu in readings}
        listed = dict(_driver_list(self._driver_list))
        for gpu in nameless:
            gpu.uuid = listed.get(pci_address(gpu.pci)) if gpu.pci else None
        unnamed = {uuid: pci for pci, uuid in listed.items() if uuid not in named}
        # One of each: then it can be no other.
        if len(nameless) == len(unnamed) == 1:
            ((nameless[0].uuid, nameless[0].pci),) = unnamed.items()


def _driver_list(folder: Path) -> Iterator[tuple[str, str]]:
    """PCI address and UUID of each GPU that the driver knows, whether NVML can open it or not."""
    try:
        for entry in folder.iterdir():
            for line in (entry / "information").read_text(errors="replace").splitlines():
                key, _, value = line.partition(":")
                # A GPU that has never been opened shows question marks there.
                if key.strip() == "GPU UUID" and "?" not in value:
                    yield pci_address(entry.name), value.strip()
    except OSError:
        return


def _build_gpu(reading: GpuReading) -> Gpu:
    return Gpu(
        uuid=DeviceUuid(reading.uuid or ""),
        index=reading.index,
        minor=reading.minor,
        pci=pci_address(reading.pci),
        name=reading.name,
        mig=reading.mig,
        health=tuple(_describe_health(reading)),
        failed=describe_failure(reading.failure) if reading.failure else "",
        memory_used=reading.memory_used,
        memory_total=reading.memory_total,
        utilization=reading.utilization,
        temperature=reading.temperature,
    )


def _explain_blind(device: GpuReading | MigReading, gpu: GpuReading, pid_max: int) -> str:
    """Why nothing is known of the processes on a device; "" if they are known."""
    if device.blind:
        return explain_for_gpu(device.blind, mig=isinstance(device, MigReading))
    if not gpu.listed:
        return _explain_reading(gpu)
    # A row on no MIG device that cannot be true may be of any of them.
    return find_corruption(device, pid_max=pid_max) or find_corruption(gpu, pid_max=pid_max)


def _explain_reading(reading: GpuReading) -> str:
    """Why a GPU could not be read to its end."""
    if reading.failure is None:
        return "not known"
    return explain_for_gpu(reading.failure, mig=bool(reading.mig))


def _describe_health(reading: GpuReading) -> Iterator[str]:
    if reading.failure:
        yield _explain_reading(reading)
    if reading.ecc_errors:
        yield f"{reading.ecc_errors} uncorrected ECC errors since the driver was loaded"
    if reading.remap_pending:
        yield "rows of its memory wait for a reset to be remapped"
    if reading.remap_failed:
        yield "a row of its memory could not be remapped"


def _build_mig(reading: MigReading, gpu: Gpu) -> MigDevice:
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


def _make_unknown(reason: str) -> Unknown:
    return Unknown(source=Source.NVML, reason=reason)
