"""What the holder of a slot does with it, by one sample; unknown is neither used nor idle. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ds01d.decide.index import BooksIndex
from ds01d.decide.user_quota import weigh_profile
from ds01d.model.accounting import SlotUse, SlotWeight
from ds01d.model.books import Slot, SlotType
from ds01d.model.devices import Gpu, GpuProcess, Inventory
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Unknown

_MPS: Final = "nvidia-cuda-mps"


def find_use(name: ContainerName, slot: SlotId, index: BooksIndex) -> SlotUse | None:
    """What a container does with a slot that is booked for it; None: that is not known.

    Used: a process of it is on the device, which is not idle by the driver where that reports it.
    """
    # Decision 246: without Docker nobody knows whose a process is, or whether it was stopped.
    if index.engine is None:
        return None
    container = index.containers.get(name)
    processes = index.processes.find_processes(slot)
    is_stopped = (
        container is not None and not container.state.alive and container.started is not None
    )
    # A stopped container computes on nothing, whatever NVML could say.
    if processes is None or isinstance(processes, Unknown):
        return SlotUse.RETAINED if is_stopped else None
    if container is not None and any(process.container == container.id for process in processes):
        return _find_utilization(index.table.device_of.get(slot), index)
    if is_stopped:
        return SlotUse.RETAINED
    # One of them may be its own.
    if any(isinstance(process.container, Unknown) for process in processes):
        return None
    is_alive = container is not None and container.state.alive
    return None if is_alive and _may_compute_unseen(slot, processes, index) else SlotUse.IDLE


def _may_compute_unseen(slot: SlotId, processes: Collection[GpuProcess], index: BooksIndex) -> bool:
    """Whether a living container may compute on a device on which NVML lists no process of it."""
    gpu = _find_gpu(index.table.device_of.get(slot), index)
    # Decision 271: clients of MPS compute by its server's process, which the driver lists alone.
    by_server = any(
        process.container is None or process.command.startswith(_MPS) for process in processes
    )
    if gpu is None or gpu.mig or gpu.utilization is None:
        return by_server
    # Somebody's process that is listed explains it; if there is none, nobody knows whose it is.
    is_busy = gpu.utilization > index.policy.idle_utilization
    return is_busy and (by_server or not processes)


def _find_utilization(device: DeviceUuid | None, index: BooksIndex) -> SlotUse | None:
    """Whether a device with a process on it is used."""
    gpu = _find_gpu(device, index)
    # Of a MIG device, and of a GPU that is divided, NVML has no utilization.
    if gpu is None or gpu.mig:
        return SlotUse.USED
    # Decision 246: a failed reading is neither.
    if gpu.utilization is None:
        return None
    return SlotUse.USED if gpu.utilization > index.policy.idle_utilization else SlotUse.IDLE


def _find_gpu(device: DeviceUuid | None, index: BooksIndex) -> Gpu | None:
    inventory = index.snapshot.gpu
    gpus = inventory.gpus if isinstance(inventory, Inventory) else ()
    return next((gpu for gpu in gpus if gpu.uuid == device), None)


def find_weight(slot: Slot | None) -> SlotWeight:
    """How much of a GPU a slot is."""
    if slot is None:
        return SlotWeight(profile="", gpus=None)
    if slot.type is SlotType.PHYSICAL:
        return SlotWeight(profile=slot.profile or "", gpus=1.0)
    return find_mig_weight(slot.profile)


def find_weight_by_id(slot: SlotId, profile: str | None) -> SlotWeight:
    """How much of a GPU a slot is, by its ID and its profile, if the history has that."""
    if "." not in slot and ":" not in slot:
        return SlotWeight(profile=profile or "", gpus=1.0)
    return find_mig_weight(profile)


def find_mig_weight(profile: str | None) -> SlotWeight:
    """How much of a GPU a MIG device of this profile is."""
    gpus = weigh_profile(profile)
    return SlotWeight(profile=profile or "", gpus=None if gpus is None else float(gpus))
