"""Signs that containers which Docker reports as stopped or gone still run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ds01d.decide.index import BooksIndex
from ds01d.decide.subject import Subject
from ds01d.model.devices import GpuProcess, Inventory
from ds01d.model.primitives import ContainerId, SlotId, Unknown


def describe_living(
    ids: frozenset[ContainerId], living: Mapping[ContainerId, int] | Unknown
) -> str | None:
    """Why these containers live for the kernel, or may do so; None if they do not.

    After containerd, dockerd and a shim were killed and their run state is lost, Docker reports
    "exited (255)" of a container whose processes go on (moby 15397, kubernetes 41450, containerd
    8285 and 10645); after its storage driver was changed, it does not list it at all.
    """
    if isinstance(living, Unknown):
        return f"cannot determine whether its processes still run: {living.reason}" if ids else None
    alive = sorted(ids & living.keys())
    if not alive:
        return None
    return (
        f"process {living[alive[0]]} of container {alive[0][:12]} is still running,"
        " although Docker does not report it as running"
    )


def describe_use(
    subject: Subject, index: BooksIndex, describe: Callable[[GpuProcess, SlotId], str | None]
) -> str | None:
    """Why the slots of `subject` may still be in use; None if NVML shows that they are not.

    `describe`: why a process is a use by the subject; None for all others.
    """
    for slot in sorted(subject.slots):
        processes = index.processes.find_processes(slot)
        if isinstance(processes, Unknown):
            # Decision 154: nobody has the slot by a record without a booking, so it does not wait
            # for one sick GPU. Decision 63: a booking does.
            if not subject.booked and isinstance(index.snapshot.gpu, Inventory):
                continue
            return processes.reason
        for process in processes or ():
            # A process of unknown origin may be the subject's.
            if isinstance(process.container, Unknown):
                return f"process {process.pid} on slot {slot}: {process.container.reason}"
            if (reason := describe(process, slot)) is not None:
                return reason
    return None
