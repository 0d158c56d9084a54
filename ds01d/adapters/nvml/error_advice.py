"""What a failed call of NVML's means for an administrator: words, and what to do. Pure.

The codes are those of nvml.h; the advice differs where one GPU fails and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.adapters.nvml.protocol import Failure

# What an administrator can do, by NVML's code.
_LAYOUT_CHANGED = "the MIG layout probably changed while it was read; the next sample shows"
_ADVICE: Mapping[int | None, str] = {
    4: "ds01d has to be root and its unit must allow char-nvidia",
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
# The same where one GPU fails and the others go on.
_ADVICE_FOR_GPU: Mapping[int | None, str] = {
    4: "allow ds01d its device: see DeviceAllow= of the unit, and the mode of /dev/nvidia*",
    8: "its external power is not connected, or not enough",
    15: "look at the kernel's log for NVRM; reset it (nvidia-smi --gpu-reset), or reboot",
    16: "reset it (nvidia-smi --gpu-reset), or reboot",
    19: "another program holds it, as a reset does; the next sample shows",
    27: "it is not ready yet; the next sample shows",
    None: "see nvidia-smi -q",
}
_OTHERWISE_FOR_GPU = (
    "look at the kernel's log for NVRM; if that does not help, reset it (nvidia-smi --gpu-reset),"
    " or reboot"
)
_LAYOUT_CODES = (2, 6)  # InvalidArgument and NotFound


def explain_failure(failure: Failure) -> str:
    """Say what failed for the whole host, and what an administrator can do."""
    otherwise = _LAYOUT_CHANGED if failure.code in _LAYOUT_CODES else _OTHERWISE
    return f"NVML: {describe_failure(failure)}; {_ADVICE.get(failure.code, otherwise)}"


def explain_for_gpu(failure: Failure, *, mig: bool) -> str:
    """The same of one GPU, or (`mig`) perhaps of one of its MIG devices."""
    otherwise = _LAYOUT_CHANGED if mig and failure.code in _LAYOUT_CODES else _OTHERWISE_FOR_GPU
    return f"{describe_failure(failure)}; {_ADVICE_FOR_GPU.get(failure.code, otherwise)}"


def describe_failure(failure: Failure) -> str:
    return f"{failure.words} ({failure.call})"
