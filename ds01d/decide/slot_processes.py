"""Which processes use the device of a slot, by NVML; decides nothing.

Invariant 1: a process list that cannot be read is unknown, never empty, because an empty one proves
that nobody uses the slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.decide.slot_table import SlotTable
from ds01d.model.containers import Container
from ds01d.model.devices import GpuProcess, Inventory
from ds01d.model.primitives import DeviceUuid, SlotId, Source, Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotProcesses:
    """A sample of NVML, indexed. `migs`: the MIG devices of each GPU that has some."""

    gpu: Inventory | Unknown | None
    table: SlotTable
    devices: frozenset[DeviceUuid]
    migs: Mapping[DeviceUuid, tuple[DeviceUuid, ...]]
    by_device: Mapping[DeviceUuid, tuple[GpuProcess, ...]]

    def find_processes(self, slot: SlotId) -> tuple[GpuProcess, ...] | Unknown | None:
        """Processes on a slot's device; Unknown where they cannot be listed.

        None where nothing can run there: there is no such device, or no NVML is wanted.
        """
        gpu = self.gpu
        if gpu is None or isinstance(gpu, Unknown):
            return gpu
        device = self.table.device_of.get(slot)
        # A GPU that failed may own the device of this slot.
        if gpu.incomplete and device not in self.devices:
            failed = "; ".join(f"GPU {index}: {why}" for index, why in gpu.incomplete.items())
            return Unknown(source=Source.NVML, reason=f"the device of {slot} may be on {failed}")
        if device is None:
            return None
        processes: list[GpuProcess] = []
        # A process in a MIG device uses the GPU as a whole, too.
        for part in self.list_parts(device):
            if part in gpu.blind:
                return Unknown(source=Source.NVML, reason=f"processes on {part}: {gpu.blind[part]}")
            processes.extend(self.by_device.get(part, ()))
        return tuple(processes)

    def has_process_list(self, slot: SlotId) -> bool:
        """Whether `find_processes` can show that nobody uses a slot; without NVML it has to do.

        A device that NVML does not list any more (a MIG device in use cannot be destroyed, so it
        fell off together with its GPU) has no processes to be shown, and may have some.
        """
        # Decision 151: a living container loses a slot by its request alone, so there a list has to
        # be had.
        return not isinstance(self.gpu, Inventory) or self.table.device_of.get(slot) in self.devices

    def find_computing_devices(self, container: Container) -> frozenset[DeviceUuid]:
        """The devices that a container's processes use, booked for it or not."""
        return frozenset(
            device
            for device, processes in self.by_device.items()
            if any(process.container == container.id for process in processes)
        )

    def list_parts(self, device: DeviceUuid) -> tuple[DeviceUuid, ...]:
        """A device and, for a GPU that is cut into MIG devices, those."""
        return (device, *self.migs.get(device, ()))


def index_processes(gpu: Inventory | Unknown | None, table: SlotTable) -> SlotProcesses:
    """Index a sample."""
    migs: dict[DeviceUuid, list[DeviceUuid]] = {}
    by_device: dict[DeviceUuid, list[GpuProcess]] = {}
    devices: set[DeviceUuid] = set()
    if isinstance(gpu, Inventory):
        devices = {device.uuid for device in gpu.gpus} | {mig.uuid for mig in gpu.migs}
        for mig in gpu.migs:
            migs.setdefault(mig.gpu, []).append(mig.uuid)
        for process in gpu.processes:
            by_device.setdefault(process.device, []).append(process)
    return SlotProcesses(
        gpu=gpu,
        table=table,
        devices=frozenset(devices),
        migs={gpu_uuid: tuple(uuids) for gpu_uuid, uuids in migs.items()},
        by_device={device: tuple(processes) for device, processes in by_device.items()},
    )
