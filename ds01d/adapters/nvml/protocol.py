"""The answers of the NVML process to its parent: one document a sample, plain dataclasses.

Both sides import this, so it stays free of NVML and of anything heavy. None means "NVML does not
say", never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Failure:
    """A call that failed: its name, NVML's words, and its code (None: no error of NVML's)."""

    call: str
    words: str
    code: int | None = None


@dataclass(slots=True, kw_only=True)
class Use:
    """A process on a device; memory in bytes.

    `gi`: the GPU instance that it is in; only for what is on a GPU and on none of the MIG devices
    that were found there.
    """

    pid: int
    memory: int | None = None
    gi: int | None = None


@dataclass(slots=True, kw_only=True)
class MigReading:
    """A MIG device. `blind`: why its processes could not be listed."""

    index: int
    uuid: str
    profile: str = ""
    gi: int | None = None
    ci: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    uses: list[Use] = field(default_factory=list)
    blind: Failure | None = None


@dataclass(slots=True, kw_only=True)
class GpuReading:
    """A GPU, filled in from top to bottom.

    `failure`: why it could not be read further; everything from there down keeps its default, and
    `listed` is False where the MIG devices and the processes were not reached. `uuid` None: not
    even that could be read; `migs` None: nor which MIG devices it has. `uses`: under MIG those that
    the GPU lists and that are on none of its MIG devices.
    """

    index: int
    pci: str = ""
    uuid: str | None = None
    minor: int | None = None
    name: str = ""
    mig: bool | None = None
    migs: list[MigReading] | None = None
    listed: bool = False
    uses: list[Use] = field(default_factory=list)
    blind: Failure | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    ecc_errors: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    failure: Failure | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """One sample, or why there is none: then the process ends, and must not be asked again.

    `cuda` is sent alone, and only by a process that was started to be asked for it: the newest CUDA
    that the driver runs, as 1000 * major + 10 * minor.
    """

    driver: str = ""
    cuda: int | None = None
    gpus: list[GpuReading] = field(default_factory=list)
    failure: Failure | None = None
