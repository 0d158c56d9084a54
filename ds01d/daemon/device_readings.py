"""Device names and readings of an NVML sample, for the published status."""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.model.devices import Gpu, Inventory, MigDevice
from ds01d.model.primitives import DeviceUuid, Unknown
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
