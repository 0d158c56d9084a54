"""The world that the simulated NVML shows: GPUs, MIG devices, processes, faults of single calls.

A `World` is a value: its methods return changed copies, and `write` puts one in force, at once and
for every process that has the library loaded. The file is lines of words, owner before owned, so
that C reads it with ease:

    driver 535.183.01 12020
    gpu UUID MINOR PCI_BUS MIG PENDING MAX_MIGS MEMORY USED UTILIZATION TEMPERATURE PERSISTENCE
        ECC REMAPPED PENDING FAILED NAME       (all on one line)
    mig UUID INDEX GI CI MEMORY PROFILE
    process PID MEMORY C|G
    fault FUNCTION GPU MIG EFFECT VALUE FIRST ID
"""

import os
import re
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import Final

GIB: Final = 1 << 30
UNKNOWN_MEMORY: Final = (1 << 64) - 1

_SOURCE: Final = Path(__file__).with_name("nvml.c")


@cache
def functions() -> frozenset[str]:
    """Return the calls that a fault can befall, as the library's source has them."""
    text = _SOURCE.read_text(encoding="ascii")
    return frozenset(_plain(name) for name in re.findall(r"\bnvml[A-Z]\w+", text))


def _plain(function: str) -> str:
    """Name a call without its version: a fault befalls all of them."""
    return re.sub(r"_v\d$|WithFlags$", "", function)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimProcess:
    """A process that uses a device. Memory in bytes; None: NVML cannot tell."""

    pid: int
    memory: int | None = None
    graphics: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SimMig:
    """A MIG device. Indices may leave gaps, and a GPU instance 0 is as good as any."""

    uuid: str
    index: int
    gi: int
    ci: int = 0
    profile: str = "1g.10gb"
    memory: int = 10 * GIB
    processes: tuple[SimProcess, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimGpu:
    """A GPU. Its index is its place in the world, not its minor number."""

    uuid: str
    minor: int
    pci_bus: int
    name: str = "NVIDIA A100 80GB PCIe"
    mig: bool | None = False
    """MIG mode; None: this GPU does not know MIG."""
    mig_pending: bool | None = None
    """MIG mode after the next reset; None: no change is pending."""
    max_migs: int = 7
    migs: tuple[SimMig, ...] = ()
    processes: tuple[SimProcess, ...] = ()
    memory: int = 80 * GIB
    used: int = 0
    """Memory in use beside that of the processes."""
    utilization: int = 0
    temperature: int = 31
    persistence: bool = True
    ecc_errors: int | None = 0
    """Uncorrected ECC errors; None: no ECC."""
    remapped_rows: int | None = 0
    remap_pending: bool = False
    remap_failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SimFault:
    """What befalls a call: an NVML return code, no answer for ever, an empty list, or a delay.

    Empty are also a number of devices and a MIG mode: 0, as if that were the truth.

    `function` is any of `functions()`, with or without version suffix, or `*`. Without `gpu` it
    befalls the call for every device; with it, only for that GPU index and its MIG devices.
    `first` limits it to the first calls, counted over all processes.
    """

    function: str
    code: int | None = None
    hang: bool = False
    empty: bool = False
    delay_ms: int = 0
    gpu: int | None = None
    mig: int | None = None
    first: int = 0
    ident: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)

    def __post_init__(self) -> None:
        """Refuse a fault that would never happen, or would mean two things."""
        if self.function != "*" and _plain(self.function) not in functions():
            raise ValueError(f"the simulated NVML has no function {self.function!r}")
        if [self.code is not None, self.hang, self.empty, bool(self.delay_ms)].count(True) != 1:
            raise ValueError("a fault is one of: code, hang, empty, delay_ms")

    def line(self) -> str:
        """Render the fault for the world file."""
        effect = (
            "hang" if self.hang else "empty" if self.empty else "delay" if self.delay_ms else "code"
        )
        place = f"{_number(self.gpu)} {_number(self.mig)}"
        value = self.code or self.delay_ms
        return f"fault {_plain(self.function)} {place} {effect} {value} {self.first} {self.ident}"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that the simulated NVML shows."""

    gpus: tuple[SimGpu, ...] = ()
    faults: tuple[SimFault, ...] = ()
    driver: str = "535.183.01"
    cuda: int = 12020

    def text(self) -> str:
        """Render the world file."""
        lines = [f"driver {self.driver} {self.cuda}"]
        for gpu in self.gpus:
            lines += _gpu_lines(gpu)
        return "\n".join([*lines, *(fault.line() for fault in self.faults)]) + "\n"

    def write(self, path: Path) -> None:
        """Put this world in force for all who read `path`: the file is replaced whole."""
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        # A name may hold bytes that are no UTF-8, as Python's surrogates.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(self.text())
        Path(name).chmod(0o644)
        Path(name).replace(path)

    def slots(self) -> dict[str, str]:
        """Map slot ids to UUIDs, in order: `"0"` for a whole GPU, `"1.2"` for a MIG device."""
        found: dict[str, str] = {}
        for index, gpu in enumerate(self.gpus):
            if gpu.mig:
                found |= {f"{index}.{mig.index}": mig.uuid for mig in gpu.migs}
            else:
                found[str(index)] = gpu.uuid
        return found

    def with_process(
        self, slot: str, pid: int, memory: int | None = GIB, *, graphics: bool = False
    ) -> "World":
        """Add a process to the device of that slot."""
        process = SimProcess(pid=pid, memory=memory, graphics=graphics)
        gpu, mig = _parts(slot)
        if mig is None:
            return self._on(gpu, lambda old: replace(old, processes=(*old.processes, process)))
        return self._on_mig(gpu, mig, lambda old: replace(old, processes=(*old.processes, process)))

    def without_process(self, pid: int) -> "World":
        """Take a process away from every device."""

        def left(processes: tuple[SimProcess, ...]) -> tuple[SimProcess, ...]:
            return tuple(process for process in processes if process.pid != pid)

        return self._on_all(
            lambda gpu: replace(
                gpu,
                processes=left(gpu.processes),
                migs=tuple(replace(mig, processes=left(mig.processes)) for mig in gpu.migs),
            )
        )

    def with_fault(
        self,
        function: str,
        code: int | None = None,
        *,
        hang: bool = False,
        empty: bool = False,
        delay_ms: int = 0,
        gpu: int | None = None,
        mig: int | None = None,
        first: int = 0,
    ) -> "World":
        """Add a fault; see SimFault."""
        fault = SimFault(
            function=function,
            code=code,
            hang=hang,
            empty=empty,
            delay_ms=delay_ms,
            gpu=gpu,
            mig=mig,
            first=first,
        )
        return replace(self, faults=(*self.faults, fault))

    def without_faults(self) -> "World":
        """Let every call succeed again."""
        return replace(self, faults=())

    def renumbered(self, order: Sequence[int]) -> "World":
        """Reorder the GPUs as a reboot can do: the one that was `order[0]` becomes 0."""
        return replace(self, gpus=tuple(self.gpus[index] for index in order))

    def migs_renumbered(self, gpu: int, indices: Mapping[int, int]) -> "World":
        """Give MIG devices of a GPU other indices; the devices stay what they are."""
        return self._on(
            gpu,
            lambda old: replace(
                old,
                migs=tuple(
                    sorted(
                        (replace(mig, index=indices.get(mig.index, mig.index)) for mig in old.migs),
                        key=lambda mig: mig.index,
                    )
                ),
            ),
        )

    def recreated(self, gpu: int | None = None) -> "World":
        """Make the MIG devices of a GPU (of all) anew: same indices, new UUIDs, no processes."""

        def renew(old: SimGpu) -> SimGpu:
            fresh = (
                replace(mig, uuid=_derived("MIG", f"after {mig.uuid}"), processes=())
                for mig in old.migs
            )
            return replace(old, migs=tuple(fresh))

        return self._on_all(renew) if gpu is None else self._on(gpu, renew)

    def without_mig(self, gpu: int | None = None) -> "World":
        """Switch MIG off on a GPU (on all), as after a reboot that lost the layout."""

        def whole(old: SimGpu) -> SimGpu:
            return replace(old, mig=old.mig and False, migs=())

        return self._on_all(whole) if gpu is None else self._on(gpu, whole)

    def without_device(self, slot: str) -> "World":
        """Destroy one MIG device, or take one GPU off the bus; those behind a lost GPU move up."""
        gpu, mig = _parts(slot)
        if mig is None:
            return replace(
                self, gpus=tuple(old for index, old in enumerate(self.gpus) if index != gpu)
            )
        return self._on(
            gpu, lambda old: replace(old, migs=tuple(one for one in old.migs if one.index != mig))
        )

    def shrunk(self, gpus: int) -> "World":
        """Keep only the first so many GPUs."""
        return replace(self, gpus=self.gpus[:gpus])

    def _on(self, gpu: int, change: Callable[[SimGpu], SimGpu]) -> "World":
        changed = change(self.gpus[gpu])
        return replace(self, gpus=(*self.gpus[:gpu], changed, *self.gpus[gpu + 1 :]))

    def _on_all(self, change: Callable[[SimGpu], SimGpu]) -> "World":
        return replace(self, gpus=tuple(change(gpu) for gpu in self.gpus))

    def _on_mig(self, gpu: int, index: int, change: Callable[[SimMig], SimMig]) -> "World":
        if index not in [mig.index for mig in self.gpus[gpu].migs]:
            raise ValueError(f"GPU {gpu} has no MIG device {index}")
        return self._on(
            gpu,
            lambda old: replace(
                old, migs=tuple(change(mig) if mig.index == index else mig for mig in old.migs)
            ),
        )


def full(count: int) -> World:
    """Return a world of whole A100s."""
    return World(gpus=tuple(_gpu(index) for index in range(count)))


def prod4() -> World:
    """Return the world of the recorded states: GPU 0 whole, GPU 1 to 3 cut into four 1g.10gb."""
    cut = (
        replace(_gpu(gpu), mig=True, migs=tuple(starmap(_slice, enumerate(row.split()))))
        for gpu, row in enumerate(_PROD4.strip().splitlines(), start=1)
    )
    return World(gpus=(_gpu(0), *cut))


_PROD4: Final = """
33a2575f-5b1a-445e-9b82-e8528dbca0d8 90ab4554-483b-4ca6-a15d-6593dcad66dd \
cc24373e-d859-426c-91ea-f0662f0b3265 3555d4fc-ff9e-4f17-ae11-9a6206d35f01
bc866722-76ef-461b-ad1d-2765c0041fcc fcf8d969-0c18-43b1-bc7a-187b0cb27e61 \
3b9bdb44-f31b-468a-87a3-4fa5da6435aa 47a1d360-8bc5-4eb0-8690-67530977f44f
a3aab0a0-8c5d-45c2-a13d-abc01e540169 28183d3b-b3a5-4056-a921-e49a2369522b \
23ae66fd-0d82-4fc5-b063-470b6fa892f3 6a4cccb4-2ec9-421a-8343-905607efec8d
"""


def _slice(index: int, text: str) -> SimMig:
    return SimMig(uuid=f"MIG-{text}", index=index, gi=7 + index)


def _gpu(index: int) -> SimGpu:
    return SimGpu(uuid=_derived("GPU", f"gpu {index}"), minor=index, pci_bus=0x21 + 0x20 * index)


def _derived(kind: str, seed: str) -> str:
    """Make a UUID that is the same in every run."""
    return f"{kind}-{uuid.uuid5(uuid.NAMESPACE_OID, seed)}"


def _parts(slot: str) -> tuple[int, int | None]:
    gpu, _, mig = slot.partition(".")
    return int(gpu), int(mig) if mig else None


def _number(value: int | None) -> int:
    return -1 if value is None else int(value)


def _gpu_lines(gpu: SimGpu) -> list[str]:
    pending = gpu.mig if gpu.mig_pending is None else gpu.mig_pending
    numbers = (
        gpu.minor,
        gpu.pci_bus,
        _number(gpu.mig),
        _number(pending),
        gpu.max_migs,
        gpu.memory,
        gpu.used,
        gpu.utilization,
        gpu.temperature,
        int(gpu.persistence),
        _number(gpu.ecc_errors),
        _number(gpu.remapped_rows),
        int(gpu.remap_pending),
        int(gpu.remap_failed),
    )
    lines = [f"gpu {gpu.uuid} {' '.join(map(str, numbers))} {gpu.name}"]
    lines += map(_process_line, gpu.processes)
    for mig in gpu.migs:
        lines.append(f"mig {mig.uuid} {mig.index} {mig.gi} {mig.ci} {mig.memory} {mig.profile}")
        lines += map(_process_line, mig.processes)
    return lines


def _process_line(process: SimProcess) -> str:
    memory = UNKNOWN_MEMORY if process.memory is None else process.memory
    return f"process {process.pid} {memory} {'G' if process.graphics else 'C'}"
