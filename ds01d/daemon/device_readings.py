"""Device names and readings of an NVML sample, for the published status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ds01d.model.devices import Gpu, GpuProcess, Inventory, MigDevice
from ds01d.model.primitives import ContainerId, DeviceUuid, Now, Unknown, Wall
from ds01d.reporting.status import GpuStatus


def index_devices_by_uuid(
    inventory: Inventory | Unknown | None,
) -> Mapping[DeviceUuid | None, Gpu | MigDevice]:
    """Each device by its UUID; empty without a sample."""
    if not isinstance(inventory, Inventory):
        return {}
    by_uuid: dict[DeviceUuid | None, Gpu | MigDevice] = {gpu.uuid: gpu for gpu in inventory.gpus}
    return by_uuid | {mig.uuid: mig for mig in inventory.migs}


def build_gpu_statuses(
    inventory: Inventory | Unknown | None, before: tuple[GpuStatus, ...]
) -> tuple[GpuStatus, ...]:
    """The GPUs; without a sample those of `before`, without their readings."""
    match inventory:
        case None:
            return ()
        case Unknown():
            return tuple(
                # Only what cannot change: a reading of before would be shown as one of now.
                GpuStatus(index=gpu.index, uuid=gpu.uuid, name=gpu.name, mig=gpu.mig)
                for gpu in before
            )
        case Inventory():
            return tuple(
                GpuStatus(
                    index=gpu.index,
                    uuid=gpu.uuid,
                    name=gpu.name,
                    mig=gpu.mig,
                    memory_used=gpu.memory_used,
                    memory_total=gpu.memory_total,
                    utilization=gpu.utilization,
                    temperature=gpu.temperature,
                    health=gpu.health,
                )
                for gpu in inventory.gpus
            )


def find_readings_time(inventory: Inventory | Unknown | None, now: Now) -> Wall | None:
    """When the sample began, on the wall clock; None without one."""
    return now.to_wall(inventory.sampled_at) if isinstance(inventory, Inventory) else None


def measure_containers(
    processes: Sequence[GpuProcess] | None,
) -> Mapping[ContainerId, tuple[int, int | None]] | None:
    """How many of the processes on a device each container has, and their memory in bytes.

    None: not known. `processes`: None if they cannot be listed.
    """
    # Decision 266: one whose container is not known may be anybody's, so there are no numbers.
    if processes is None or any(isinstance(process.container, Unknown) for process in processes):
        return None
    # By pid and device: one that computes and draws is listed twice.
    memory: dict[ContainerId, dict[tuple[int, DeviceUuid], int | None]] = {}
    for process in processes:
        if process.container is not None and not isinstance(process.container, Unknown):
            sizes = memory.setdefault(process.container, {})
            sizes[process.pid, process.device] = process.memory
    return {container: _sum_up(sizes) for container, sizes in memory.items()}


def _sum_up(sizes: Mapping[tuple[int, DeviceUuid], int | None]) -> tuple[int, int | None]:
    listed = [size for size in sizes.values() if size is not None]
    # A part of the sum would be shown as all of it.
    return len({pid for pid, _ in sizes}), sum(listed) if len(listed) == len(sizes) else None
