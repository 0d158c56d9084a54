"""What the holder of a slot does with it, by one sample; unknown is neither used nor idle. Pure."""

from __future__ import annotations

from ds01d.decide.index import BooksIndex
from ds01d.decide.user_quota import weigh_profile
from ds01d.model.accounting import SlotUse, SlotWeight
from ds01d.model.books import Slot, SlotType
from ds01d.model.devices import Gpu, Inventory
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Unknown


def find_use(name: ContainerName, slot: SlotId, index: BooksIndex) -> SlotUse | None:
    """What a container does with a slot that is booked for it; None: that is not known.

    Used: a process of it is on the device, which is not idle where the driver says how busy it is.
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
    return SlotUse.IDLE


def _find_utilization(device: DeviceUuid | None, index: BooksIndex) -> SlotUse | None:
    """Whether a device with a process on it is used."""
    inventory = index.snapshot.gpu
    gpus = inventory.gpus if isinstance(inventory, Inventory) else ()
    gpu = next((gpu for gpu in gpus if gpu.uuid == device), None)
    # Of a MIG device, and of a GPU that is divided, NVML has no utilization.
    if not isinstance(gpu, Gpu) or gpu.mig:
        return SlotUse.USED
    # Decision 246: a failed reading is neither.
    if gpu.utilization is None:
        return None
    return SlotUse.USED if gpu.utilization > 0 else SlotUse.IDLE


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
