"""When a container that Docker does not list counts as gone.

Pure; every wait is a moment on CLOCK_BOOTTIME.
"""

from __future__ import annotations

from dataclasses import replace

from ds01d.decide.creations import has_process_ended
from ds01d.decide.index import BooksIndex
from ds01d.decide.liveness import describe_living, describe_use
from ds01d.decide.subject import Subject
from ds01d.model.devices import GpuProcess, Inventory
from ds01d.model.holding import Free, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import Boot, SlotId, Source
from ds01d.model.reservation import describe_processes


def decide_absent(subject: Subject, index: BooksIndex) -> Verdict:
    """The verdict on a name that no container has: free once its absence is proven.

    Undecided while a process on its devices belongs to a container that the engine does not list.
    """
    checkpoint, gpu = index.checkpoint, index.snapshot.gpu
    if subject.name not in checkpoint.absent or checkpoint.since is None:
        return Undecided(needs=Source.DOCKER, reason="absence not observed yet")
    free = _prove_absence(subject, checkpoint.absent[subject.name], checkpoint.since, index)
    # A process list that is older than the absence shows what was there before. A new sample is
    # taken when the release is due.
    is_waiting = index.snapshot.now.boot < free.due
    if is_waiting and isinstance(gpu, Inventory) and gpu.sampled_at < free.since:
        return free
    listed = index.engine.containers if index.engine is not None else {}

    def describe_unlisted(process: GpuProcess, slot: SlotId) -> str | None:
        # A container that the engine does not list still computes: another engine's, or one
        # hidden by a change of the storage driver.
        if process.container is None or process.container in listed:
            return None
        return (
            f"process {process.pid} ({process.command}) on slot {slot} belongs to"
            f" container {str(process.container)[:12]}, which the engine does not list"
        )

    doubt = describe_use(subject, index, describe_unlisted)
    if doubt is not None:
        return Undecided(needs=Source.NVML, reason=doubt)
    # Decision 60: Docker may forget a container that still runs (lost run state, another storage
    # driver), the kernel does not.
    ids = subject.find_inactive_ids(free)
    return replace(free, blocked=describe_living(ids, index.snapshot.living))


def _prove_absence(subject: Subject, first: Boot, since: Boot, index: BooksIndex) -> Free:
    """When its absence is proven as far as Docker goes. `first`: when it was first missed."""
    name, identity = subject.name, subject.identity
    checkpoint, policy = index.checkpoint, index.policy
    destroyed, appeared = checkpoint.destroyed.get(name), checkpoint.appeared.get(name)
    # Of a booking that is younger than the event, the event proves nothing.
    rebooked = destroyed is not None and appeared is not None and appeared.at > destroyed[1]
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
    record = subject.record
    if has_process_ended(subject, index) and record is not None:
        # Without a grace: the end of a process is a fact, an absence only what Docker leaves out.
        return Free(
            proof=Proof.PROCESS_ENDED,
            why=VerdictReason.ABSENT,
            due=start,
            since=start,
            evidence=(f"proc: {describe_processes(record.processes)} ended, {absence}",),
        )
    watched = max(0.0, index.snapshot.now.boot - start)
    return Free(
        proof=Proof.ABSENT,
        why=VerdictReason.ABSENT,
        due=Boot(start + policy.absence_grace_s),
        since=start,
        known_id=identity.id if identity is not None else None,
        evidence=(f"docker: {absence}, for {watched:.0f} s as far as watched",),
    )
