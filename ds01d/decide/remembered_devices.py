"""Devices of a failed GPU, completed from the remembered inventory. Pure.

A GPU that fails may not even say which GPU it is, or which MIG devices it has. What was there
before, also before a restart of ds01d, is its: only so its holders keep their slots while all
other GPUs go on.

A GPU that fails may also say that it cannot do MIG at all: "not supported" is what NVML answers for
every GPU without MIG. But whether a GPU can is a matter of its kind and of the driver, so one that
had MIG devices under this driver since the boot can, and its answer is not believed.
"""

from __future__ import annotations

from dataclasses import replace

from ds01d.decide.inventory_places import Position, device_positions, parse_fingerprint
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.devices import Gpu, Inventory, MigDevice
from ds01d.model.primitives import DeviceUuid, Now


def inventory_conditions(gpu: Inventory, now: Now) -> str:
    """Under what an inventory was taken: the boot and the driver. Neither changes what a GPU is."""
    return f"{now.boot_id} {gpu.driver}"


def restore_remembered(gpu: Inventory, checkpoint: Checkpoint, now: Now) -> Inventory:
    """The inventory with the devices of failed GPUs, as far as they are certain."""
    # Decision 149: whether a GPU supports MIG depends on the model and the driver, so within one
    # boot and driver the answer cannot change.
    if inventory_conditions(gpu, now) == checkpoint.inventory_conditions:
        gpu = _distrust_without_mig(gpu, checkpoint.inventory)
    return complete_inventory(gpu, checkpoint.inventory)


def _distrust_without_mig(gpu: Inventory, fingerprint: str) -> Inventory:
    """Mark as incomplete each GPU that had MIG devices and now reports no MIG support."""
    before = dict(parse_fingerprint(fingerprint))
    divided = {before.get((index, None)) for index, mig in before if mig is not None}
    sick = {
        gpu_state.index
        for gpu_state in gpu.gpus
        if gpu_state.mig is None and gpu_state.uuid in divided
    }
    if not sick:
        return gpu
    gpus = (
        replace(
            gpu_state,
            mig=True,
            failed=gpu_state.failed or _NO_MIG,
            health=(*gpu_state.health, _NO_MIG),
        )
        if gpu_state.index in sick
        else gpu_state
        for gpu_state in gpu.gpus
    )
    return replace(
        gpu, gpus=tuple(gpus), incomplete={**gpu.incomplete, **dict.fromkeys(sick, _NO_MIG)}
    )


_NO_MIG = (
    "reports that it does not support MIG, but had MIG devices under this driver"
    " (accepted after a reboot or a driver change)"
)


def complete_inventory(gpu: Inventory, fingerprint: str) -> Inventory:
    """Add what is missing of the incomplete GPUs, as in the inventory that has this fingerprint.

    The inventory as it is where that may be wrong: other GPUs were there, or at other indices.
    """
    if not gpu.incomplete:
        return gpu
    before = dict(parse_fingerprint(fingerprint))
    # Decision 62: with another set of GPUs the remembered places may name the wrong device, and a
    # wrong device is worse than none.
    if not _same_gpus(gpu, before):
        return gpu
    reasons, listed = gpu.incomplete, device_positions(gpu)
    missing = {
        place: uuid for place, uuid in before.items() if place[0] in reasons and place not in listed
    }
    listed_indices = {device.index for device in gpu.gpus}
    gpus = [
        _restore_gpu(uuid, index, before, reasons[index])
        for (index, mig), uuid in missing.items()
        if mig is None and index not in listed_indices
    ]
    migs = [
        MigDevice(uuid=uuid, gpu=before[index, None], gpu_index=index, index=mig)
        for (index, mig), uuid in missing.items()
        if mig is not None
    ]
    # Their processes cannot be listed, so their bookings stay, and they are neither released nor
    # handed out.
    blind = {
        uuid: f"its processes cannot be listed: {reasons[index]}"
        for (index, _), uuid in before.items()
        if index in reasons
    }
    return replace(
        gpu,
        gpus=tuple(sorted((*gpu.gpus, *gpus), key=lambda device: device.index)),
        migs=tuple(sorted((*gpu.migs, *migs), key=lambda device: (device.gpu_index, device.index))),
        blind={**blind, **gpu.blind},
        incomplete={},
    )


def _restore_gpu(
    uuid: DeviceUuid, index: int, before: dict[Position, DeviceUuid], reason: str
) -> Gpu:
    """A GPU that does not even say which one it is, as it was."""
    is_divided = any(place[0] == index and place[1] is not None for place in before)
    return Gpu(uuid=uuid, index=index, mig=is_divided, failed=reason, health=(reason,))


def _same_gpus(gpu: Inventory, before: dict[Position, DeviceUuid]) -> bool:
    """Whether every identified GPU was at its index, and the number of GPUs is the same."""
    listed = {(gpu_state.index, None): gpu_state.uuid for gpu_state in gpu.gpus}
    whole = {place: uuid for place, uuid in before.items() if place[1] is None}
    indices = {index for index, _ in listed} | gpu.incomplete.keys()
    return {index for index, _ in whole} == indices and listed.items() <= whole.items()
