"""NVML's side: GPUs, MIG devices, and the processes on them. Pure values.

All memory is in bytes. None means that the driver does not say, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.model.primitives import Boot, ContainerId, DeviceUuid, Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A physical GPU. `mig`: None if it cannot do MIG. Readings: None = unknown.

    Memory in bytes, `utilization` in percent, `temperature` in degrees Celsius.
    `pci` as the kernel's journal names it, "0000:3b:00"; "" = unknown. `failed`: why it cannot be
    used at all (a call that has to succeed failed, or it is lost or has to be reset), also in
    `health`; "" if it can.
    """

    uuid: DeviceUuid
    index: int
    minor: int | None = None
    pci: str = ""
    name: str = ""
    # Not False: a GPU that cannot do MIG and one whose MIG is off are different answers (decision
    # 149).
    mig: bool | None = None
    health: tuple[str, ...] = ()
    failed: str = ""
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: int | None = None
    temperature: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigDevice:
    """A MIG device; `index` as `nvidia-smi -L` counts it, `gi`/`ci` its instance ids.

    Memory in bytes.
    """

    uuid: DeviceUuid
    gpu: DeviceUuid
    gpu_index: int
    index: int
    profile: str = ""
    gi: int | None = None
    ci: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process on a device.

    `container` is None for a process of the host, Unknown if it could not be determined.
    `memory` in bytes, None = the driver does not say.
    """

    pid: int
    device: DeviceUuid
    # Three answers: a process of unknown origin may be anybody's, one of the host is no
    # container's.
    container: ContainerId | Unknown | None
    user: str = ""
    command: str = ""
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One NVML sample.

    `blind`: devices whose process list could not be read, or cannot be true; nothing about their
    use is known. `incomplete`: indices of GPUs that would not say which GPU they are, or which MIG
    devices they have, with the reason: a device that is not listed here may be theirs.
    `sampled_at`: when the sample began.
    """

    gpus: tuple[Gpu, ...]
    migs: tuple[MigDevice, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    # Invariant 1: one device that cannot be read makes that device unknown, and no other.
    blind: Mapping[DeviceUuid, str] = field(default_factory=dict)
    incomplete: Mapping[int, str] = field(default_factory=dict)
    # Begun, not ended: what happened while it was taken may be missing in it.
    sampled_at: Boot = Boot(0.0)
    driver: str = ""
