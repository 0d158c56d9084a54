"""Readings of NVML's that cannot be true: what drivers and sick GPUs are known to answer. Pure."""

from __future__ import annotations

from ds01d.adapters.nvml.protocol import Failure, GpuReading, MigReading

_LAST_INSTANCE = 14  # 0 to 14 on what there is; a corrupt row may have any number


def distrust_mig_mode(reading: GpuReading) -> None:
    """MIG mode is unknown for a GPU that reports MIG off and a process in a GPU instance."""
    # A process is in a GPU instance only while MIG is on (nvml.h, nvmlProcessInfo_t).
    if reading.mig is False and any(_is_instance(use.gi) for use in reading.uses):
        reading.mig = None


def _is_instance(gi: int | None) -> bool:
    return gi is not None and gi <= _LAST_INSTANCE


def distrust_part_of_mig(reading: GpuReading) -> None:
    """A GPU counts as failed if a process is in an instance that no MIG device belongs to."""
    # decision 127: NVML returns "not found" for an index that is empty, and a sick GPU may return
    # it for any: then there are more MIG devices than it names.
    instances = {mig.gi for mig in reading.migs or ()}
    if not reading.mig or reading.migs is None or None in instances:
        return
    for use in reading.uses:
        if _is_instance(use.gi) and use.gi not in instances:
            words = f"it names no MIG device of GPU instance {use.gi}, where process {use.pid} is"
            call = "nvmlDeviceGetMigDeviceHandleByIndex"
            reading.failure = reading.failure or Failure(call=call, words=words)
            reading.migs, reading.listed = None, False
            return


def find_corruption(device: GpuReading | MigReading, *, pid_max: int) -> str:
    """Why a device's process list cannot be true; "" if it can.

    Drivers 535.43 to 535.86 hand out rows of another size than nvidia-ml-py expects, and pids of 0
    and 4294967295 and sizes without meaning stand among true ones (nvitop 75 and 76, gpustat 157,
    go-nvml 21). Then other processes on the device are unknown.
    """
    for use in device.uses:
        if not 0 < use.pid <= pid_max:
            wrong = f"invalid pid {use.pid}"
        elif use.memory and device.memory_total and use.memory > device.memory_total:
            wrong = f"process {use.pid} uses {use.memory} of {device.memory_total} bytes"
        else:
            continue
        return f"the list is corrupt, {wrong}; driver and nvidia-ml-py do not fit: upgrade both"
    return ""
