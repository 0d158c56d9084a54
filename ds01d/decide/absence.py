"""When a container that is not listed counts as gone, and how long a creation may take.

Pure; every wait is a moment on CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ds01d.decide.deadlines import Deadlines
from ds01d.decide.former_containers import describe_living, ids_of
from ds01d.decide.gaps import watched_end
from ds01d.decide.index import BooksIndex
from ds01d.model.books import LOG_RESOLUTION_S, Attempt
from ds01d.model.devices import Inventory
from ds01d.model.holding import Free, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import Boot, ContainerName, SlotId, Source, Unknown, Wall


def creation_end(
    name: ContainerName, index: BooksIndex, clock: Deadlines
) -> tuple[Boot, str] | None:
    """Until when `name` counts as being created, with the reason; None if it is not, or no more."""
    record, attempt_or_failure = index.find_record(name), index.find_attempt(name)
    attempt = Attempt() if isinstance(attempt_or_failure, Unknown) else attempt_or_failure
    checkpoint, now, books_name = (
        index.checkpoint,
        index.snapshot.now.boot,
        index.name_in_books(name),
    )
    allocated = record.allocated_at if record is not None else None
    pending, failed = attempt.started, attempt.failed
    # Decision 10: the log has whole seconds, so the order of its lines has decided already which
    # attempt counts.
    newest = max([t for t in (allocated, pending) if t is not None], default=None)
    began = None  # put on the clock at first sight, also where it does not count now
    if attempt.latest_start is not None:
        began = clock.anchor_time(f"pending|{books_name}", str(pending), attempt.latest_start)
    # A creation ends with a finished (labelled) container, or with a failure that was logged after
    # it began.
    ended = _created_since(name, newest, index) or (
        failed is not None and newest is not None and failed + LOG_RESOLUTION_S > newest
    )
    # Without the operations log an end cannot be seen, so an absent container counts as being
    # created until the grace is over.
    unwitnessed = isinstance(attempt_or_failure, Unknown) and books_name in checkpoint.absent
    if ended and not unwitnessed:
        return None

    anchors: list[tuple[Boot, str]] = []
    if record is not None and allocated is not None:
        text = record.allocated_text or str(allocated)
        anchors.append(
            (
                clock.anchor_time(f"allocated|{books_name}", text, allocated),
                f"metadata: allocated {text}",
            )
        )
    if began is not None:
        anchors.append((began, "operations: its create_start is pending"))
    if isinstance(attempt_or_failure, Unknown) and books_name in checkpoint.absent:
        anchors.append((checkpoint.absent[books_name], f"operations: {attempt_or_failure.reason}"))
    appeared = checkpoint.appeared.get(books_name)
    # A booking that was there before the first sweep has no known age; its metadata gives a better
    # time.
    if appeared is not None and (not appeared.inherited or allocated is None):
        anchors.append((appeared.at, "state: its booking appeared"))
    # Decision 17: only from when it came, ended or went, not for as long as it exists.
    if books_name in checkpoint.unlabelled:
        anchors.append(
            (
                checkpoint.unlabelled[books_name],
                "docker: seen without labels, as it is while being created",
            )
        )
    if not anchors:
        return None
    start, reason = max(anchors)
    grace = index.policy.creation_grace_s
    end, since = watched_end(start, grace, checkpoint.gaps), checkpoint.since
    # Decision 3: a gap in Docker's answers may hide the end of the creation, so its grace starts
    # again.
    if since is not None and start < since < end:
        end = Boot(since + grace)  # it was under way when Docker's gap ended: the wait starts again
    return (end, reason) if now < end else None


def _created_since(name: ContainerName, newest: Wall | None, index: BooksIndex) -> bool:
    """A labelled container of that name was created after everything that began a creation."""
    container = index.find_container(name)
    if container is not None:
        created = container.created if container.labelled else None
        return created is not None and (newest is None or created >= newest)
    identity, checkpoint = index.checkpoint.identities.get(name), index.checkpoint
    if identity is None or not identity.labelled or identity.created is None or newest is None:
        return False
    appeared, gone = checkpoint.appeared.get(name), checkpoint.absent.get(name)
    # Decision 8: a booking that appeared after the removal belongs to a new creation, not to the
    # finished one.
    rebooked = appeared is not None and gone is not None and appeared.at > gone
    return identity.created >= newest and not rebooked


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
