"""Everything observed for one pass. Each source is a complete answer or an `Unknown`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.model.books import AllocatorState, Attempt, BadRecord, Record, Unreadable
from ds01d.model.checkpoint import Holding
from ds01d.model.containers import Engine
from ds01d.model.device_access import DeviceAccess
from ds01d.model.devices import Inventory
from ds01d.model.limits import Limits
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Now, Source, Unknown, UserName
from ds01d.model.reservation import ProcessState, ReservingProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The answers of all sources to a pass that began at `now`.

    `looked`: CLOCK_BOOTTIME when the last source had answered; None: at `now`.
    `names`: the containers of the pass; None: a sweep over everything.
    `gpu`: None with `gpu.source = "none"`: then the slots in the state are the inventory.
    `metadata`: every record of the folder, also outside `names`.
    `passwd`: uid → user name, for the uids at the end of DS01 names that the host knows.
    `logins`: user name → uid, for names in labels whose uid is not in `passwd`, and of those whose
    a container may be. `owners`: the content of the owners file, as far as it was read.
    `faults`: GPU faults (Xid errors) from the kernel's journal, PCI address → message.
    `holdings`: with Docker as the books, what each container has (`derive_books`).
    `processes`: those for which slots are reserved; UNKNOWN where one is missing.
    `device_access`: what running containers may open; those of which that is not known are missing.
    `living`: container → pid of a living process, whatever Docker's state is; searched only for
    containers that are about to lose something (decision 60).
    """

    now: Now
    docker: Engine | Unknown
    gpu: Inventory | Unknown | None
    state: AllocatorState | Unreadable | Unknown
    metadata: Mapping[ContainerName, Record | BadRecord] | Unknown
    operations: Mapping[ContainerName, Attempt] | Unknown
    limits: Limits | Unknown
    names: frozenset[ContainerName] | None = None
    looked: Boot | None = None
    passwd: Mapping[int, str] = field(default_factory=dict)
    logins: Mapping[str, int] = field(default_factory=dict)
    owners: Mapping[ContainerId, UserName] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    holdings: Mapping[ContainerId, Holding] = field(default_factory=dict)
    processes: Mapping[ReservingProcess, ProcessState] = field(default_factory=dict)
    device_access: Mapping[ContainerId, DeviceAccess] = field(default_factory=dict)
    living: Mapping[ContainerId, int] | Unknown = field(default_factory=dict)

    @property
    def observed_at(self) -> Boot:
        """When everything in here had surely happened: waiting times begin then (decision 48)."""
        return self.now.boot if self.looked is None else max(self.now.boot, self.looked)

    def find_process_state(self, record: Record | None) -> ProcessState | None:
        """What is known of the processes for which a record is; None where there are none.

        RUNS as long as one of them runs, ENDED when all of them have.
        """
        if record is None or not record.processes:
            return None
        # Decision 233: what cannot be seen has not ended; then the creation grace counts.
        states = {self.processes.get(process, ProcessState.UNKNOWN) for process in record.processes}
        # Decision 251: who came second may still pull when the first one has ended.
        alive = (ProcessState.RUNS, ProcessState.UNKNOWN)
        return next((state for state in alive if state in states), ProcessState.ENDED)

    def sources(self) -> Mapping[Source, str]:
        """Each source with "ok" or the reason why it is unknown."""
        answers = {
            Source.DOCKER: self.docker,
            Source.NVML: self.gpu,
            Source.STATE: self.state,
            Source.METADATA: self.metadata,
            Source.OPERATIONS: self.operations,
            Source.LIMITS: self.limits,
        }
        return {
            source: answer.reason
            if isinstance(answer, Unknown | Unreadable)
            else (isinstance(answer, Limits) and answer.problem) or "ok"
            for source, answer in answers.items()
        }
