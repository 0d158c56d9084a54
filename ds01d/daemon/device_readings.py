"""Device names and readings of an NVML sample, for the published status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ds01d.model.containers import Container
from ds01d.model.devices import Gpu, GpuProcess, Inventory, MigDevice
from ds01d.model.primitives import DeviceUuid, Now, Unknown, Wall
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


def measure_holder(
    container: Container | None, processes: Sequence[GpuProcess] | None
) -> tuple[int | None, int | None]:
    """How many of the processes on a device are of a container, and their memory in bytes.

    None: not known. `processes`: None if they cannot be listed.
    """
    if container is None or processes is None:
        return None, None
    # Decision 280: one whose container is not known may be this one's, so there is no number.
    if any(isinstance(process.container, Unknown) for process in processes):
        return None, None
    # By its pid and device: one that computes and draws is listed twice.
    memory = {
        (process.pid, process.device): process.memory
        for process in processes
        if process.container == container.id
    }
    sizes = [used for used in memory.values() if used is not None]
    # A part of the sum would be shown as all of it.
    return len({pid for pid, _ in memory}), sum(sizes) if len(sizes) == len(memory) else None
