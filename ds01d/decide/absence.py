"""When a container that Docker does not list counts as gone.

Pure; every wait is a moment on CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ds01d.decide.former_containers import describe_living, ids_of
from ds01d.decide.index import BooksIndex
from ds01d.model.devices import Inventory
from ds01d.model.holding import Free, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import Boot, ContainerName, SlotId, Source, Unknown


def decide_absent(
    name: ContainerName, slots: Iterable[SlotId], index: BooksIndex, *, booked: bool = True
) -> Verdict:
    """The verdict on a name that no container has: free once its absence is proven.

    Undecided while a process on its devices belongs to a container that the engine does not list.
    `booked`: it has these slots; if not, only its metadata lists them.
    """
    if name not in index.checkpoint.absent or index.checkpoint.since is None:
        return Undecided(needs=Source.DOCKER, reason="absence not observed yet")
    free = _prove_absence(name, index.checkpoint.absent[name], index.checkpoint.since, index)
    # The process list is older than the absence: it shows what was there before. A new sample is
    # taken when the release is due.
    waits = index.snapshot.now.boot < free.due
    if (
        waits
        and isinstance(index.snapshot.gpu, Inventory)
        and index.snapshot.gpu.sampled_at < free.since
    ):
        return free  # that sample tells who was there before; there will be another when it is due
    # Decision 60: Docker may forget a container that still runs (lost run state, another storage
    # driver), the kernel does not.
    alive = describe_living(ids_of(name, free, index), index.snapshot.living)
    return _find_process_doubt(slots, index, booked=booked) or replace(free, blocked=alive)


def is_blind(processes: object, index: BooksIndex) -> bool:
    """Whether processes are unknown because of one GPU, not because NVML does not answer."""
    return isinstance(processes, Unknown) and isinstance(index.snapshot.gpu, Inventory)


def _prove_absence(name: ContainerName, first: Boot, since: Boot, index: BooksIndex) -> Free:
    """When its absence is proven as far as Docker goes. `first`: when it was first missed."""
    checkpoint, policy = index.checkpoint, index.policy
    identity = checkpoint.identities.get(name)
    destroyed, appeared = checkpoint.destroyed.get(name), checkpoint.appeared.get(name)
    rebooked = (
        destroyed is not None
        and appeared is not None
        and not appeared.inherited
        and appeared.at > destroyed[1]
    )  # of a booking that is younger than the event, the event proves nothing
    absence = "no container has this name"
    if name in index.renames.orphans and identity is not None:
        absence = f"container {identity.id[:12]} is gone, another one has its name"
    if destroyed is not None and not rebooked:
        container_id, at = destroyed
        start = max(at, since)
        return Free(
            proof=Proof.DESTROYED,
            why=VerdictReason.ABSENT,
            due=Boot(start + policy.settle_s),
            since=start,
            known_id=container_id,
            evidence=(f"docker: container {container_id[:12]} was destroyed, {absence}",),
        )
    # The grace counts only while Docker answered: an absence before `since` was not observed.
    start = max(first, since)
    watched = max(0.0, index.snapshot.now.boot - start)
    return Free(
        proof=Proof.ABSENT,
        why=VerdictReason.ABSENT,
        due=Boot(start + policy.absence_grace_s),
        since=start,
        known_id=identity.id if identity is not None else None,
        evidence=(f"docker: {absence}, for {watched:.0f} s as far as watched",),
    )


def _find_process_doubt(
    slots: Iterable[SlotId], index: BooksIndex, *, booked: bool
) -> Undecided | None:
    """Why its devices may be used still. Of a record without a booking only what is seen counts.

    A sick GPU that lists nothing would keep that record for as long as it is sick; nobody has the
    slot by it, and what is removed is in the history.
    """
    engine = index.engine
    for slot in sorted(slots):
        processes = index.find_processes(slot)
        if processes is None:
            continue
        if not booked and is_blind(processes, index):
            continue
        if isinstance(processes, Unknown):
            return Undecided(needs=Source.NVML, reason=processes.reason)
        for process in processes:
            if isinstance(process.container, Unknown):
                return Undecided(
                    needs=Source.NVML,
                    reason=f"process {process.pid} on slot {slot}: {process.container.reason}",
                )
            # A container that the engine does not list still computes: another engine, or one
            # hidden by a change of the storage driver.
            if process.container is not None and (
                engine is None or process.container not in engine.containers
            ):
                return Undecided(
                    needs=Source.NVML,
                    reason=f"process {process.pid} ({process.command}) on slot {slot} belongs to"
                    f" container {process.container[:12]}, which the engine does not list",
                )
    return None
