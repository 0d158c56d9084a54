"""When creations began, and how long a name counts as being created. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ds01d.decide.claims import find_claim
from ds01d.decide.deadlines import Deadlines, to_boot_time
from ds01d.decide.gaps import watched_end
from ds01d.decide.index import BooksIndex
from ds01d.decide.subject import Subject
from ds01d.model.books import LOG_RESOLUTION_S, Attempt, Record
from ds01d.model.checkpoint import AnchoredTime, Checkpoint
from ds01d.model.containers import Container, Engine
from ds01d.model.primitives import Boot, ContainerName, Unknown, Wall
from ds01d.model.reservation import ProcessState, describe_processes
from ds01d.model.snapshot import Snapshot


def find_creation_end(
    subject: Subject, index: BooksIndex, deadlines: Deadlines
) -> tuple[Boot, str] | None:
    """Until when a name counts as being created, with the reason; None if it does not.

    Invariant: a creation lasts for the creation grace from the newest sign that one began, unless
    its end (a finished container, a logged failure) is newer than every start in books and log.
    One that a process reserved for lasts as long as that runs, whatever containers come and go.
    """
    # Nearly nothing is reserved for a process.
    if subject.record is not None and subject.record.processes:
        if has_process_ended(subject, index):
            return None
        if (reserved := _find_reservation_end(subject, index, deadlines)) is not None:
            return reserved
    attempt, checkpoint, pending = subject.attempt, index.checkpoint, None
    # Anchored at first sight, also where it does not count now.
    if isinstance(attempt, Attempt) and attempt.latest_start is not None:
        key = f"pending|{subject.books_name}"
        pending = deadlines.anchor_time(key, str(attempt.started), attempt.latest_start)
    if _has_ended(subject, index):
        return None
    signs = list(_list_signs(subject, pending, index, deadlines))
    if not signs:
        return None
    start, reason = max(signs)
    grace_s, since = index.policy.creation_grace_s, checkpoint.since
    end = watched_end(start, grace_s, checkpoint.gaps)
    # Decision 3: a gap in Docker's answers may hide the end of the creation, so its grace starts
    # again.
    if since is not None and start < since < end:
        end = Boot(since + grace_s)
    return (end, f"{reason}; creation grace") if index.snapshot.now.boot < end else None


def has_process_ended(subject: Subject, index: BooksIndex) -> bool:
    """Whether slots are reserved for a process that has ended without a container."""
    if index.snapshot.find_process_state(subject.record) is not ProcessState.ENDED:
        return False
    identity, allocated = subject.identity, subject.allocated_at
    if subject.container is not None or allocated is None:
        return False
    # Once a container came it is a booking, whose end takes the proofs of every other one.
    return identity is None or (identity.created is not None and identity.created < allocated)


def _find_reservation_end(
    subject: Subject, index: BooksIndex, deadlines: Deadlines
) -> tuple[Boot, str] | None:
    """Until when slots are reserved for a process that runs; None if they are not."""
    record, allocated, container = subject.record, subject.allocated_at, subject.container
    if index.snapshot.find_process_state(record) is not ProcessState.RUNS:
        return None
    if record is None or allocated is None:
        return None
    # Before a container counts: its limit goes on while one lives, and does not begin with its end.
    text = record.allocated_text or str(allocated)
    begun = deadlines.anchor_time(f"allocated|{subject.books_name}", text, allocated)
    # Decision 231: the container may be a step of the creation, removed before the next one is
    # made; while it lives it is what it is.
    if container is not None and container.state.alive:
        return None
    if _has_failed(subject, allocated) or _find_elsewhere(subject, index) is not None:
        return None
    # Decision 232: nobody keeps a slot from others by a process that only sleeps.
    end = Boot(begun + index.policy.reservation_limit_s)
    processes = describe_processes(record.processes)
    reason = f"metadata: reserved since {text} for {processes}, which runs; its limit"
    return (end, reason) if index.snapshot.now.boot < end else None


def _has_failed(subject: Subject, newest: Wall) -> bool:
    """Whether the operations log has a failure since."""
    attempt = subject.attempt
    if isinstance(attempt, Unknown) or attempt.failed is None:
        return False
    # Decision 10: the order of the lines has decided already which attempt counts; the log itself
    # has whole seconds only.
    return attempt.failed + LOG_RESOLUTION_S > newest


def _has_ended(subject: Subject, index: BooksIndex) -> bool:
    """Whether a finished container or a logged failure ended the newest creation."""
    attempt = subject.attempt
    # Decision 202: a container is its booking, so a reservation ends where it exists.
    if index.config.books.kind == "docker" and subject.container is not None:
        return True
    # Without the operations log a failure cannot be seen, and a container that is gone may have
    # been one of its steps: the grace has to be waited for.
    if isinstance(attempt, Unknown) and subject.books_name in index.checkpoint.absent:
        return False
    pending = None if isinstance(attempt, Unknown) else attempt.started
    newest = subject.allocated_at
    if newest is None or (pending is not None and pending > newest):
        newest = pending
    if _is_created_since(subject, newest, index):
        return True
    return newest is not None and _has_failed(subject, newest)


def _list_signs(
    subject: Subject, pending: Boot | None, index: BooksIndex, deadlines: Deadlines
) -> Iterator[tuple[Boot, str]]:
    """Every sign that a creation began, with its moment."""
    checkpoint, books_name = index.checkpoint, subject.books_name
    record, allocated = subject.record, subject.allocated_at
    if record is not None and allocated is not None:
        text = record.allocated_text or str(allocated)
        at = deadlines.anchor_time(f"allocated|{books_name}", text, allocated)
        yield at, f"metadata: allocated {text}"
    if pending is not None:
        yield pending, "operations: its create_start is pending"
    if isinstance(subject.attempt, Unknown) and books_name in checkpoint.absent:
        yield checkpoint.absent[books_name], f"operations: {subject.attempt.reason}"
    appeared = checkpoint.appeared.get(books_name)
    # A booking that was there before the first sweep has no known age; its metadata gives a better
    # time.
    if appeared is not None and (not appeared.inherited or allocated is None):
        yield appeared.at, "state: its booking appeared"
    # Decision 17: only from when it came, ended or went, not for as long as it exists.
    if books_name in checkpoint.unlabelled:
        yield (
            checkpoint.unlabelled[books_name],
            "docker: seen without labels, as it is while being created",
        )


def _is_created_since(subject: Subject, newest: Wall | None, index: BooksIndex) -> bool:
    """A labelled container of that name was created after everything that began a creation."""
    container, identity, checkpoint = subject.container, subject.identity, index.checkpoint
    if _has_claimed(subject, index):
        return True
    if container is not None:
        created = container.created if container.labelled else None
        if created is None or (newest is not None and created < newest):
            return False
        return not _is_booked_since_stop(subject, container, index)
    if identity is None or identity.created is None or newest is None:
        return False
    # Decision 202: labels are no sign where a container is its booking.
    if not identity.labelled and index.config.books.kind == "files":
        return False
    appeared, gone = checkpoint.appeared.get(subject.name), checkpoint.absent.get(subject.name)
    if identity.created < newest or appeared is None or gone is None:
        return identity.created >= newest
    # Decision 8: a booking that appeared after the removal, or in the same look, belongs to a new
    # creation, not to the finished one.
    return appeared.at < gone or (appeared.at == gone and appeared.inherited)


def _is_booked_since_stop(subject: Subject, container: Container, index: BooksIndex) -> bool:
    """Whether a stopped container was given a slot since, and is perhaps about to be started."""
    appeared, stopped = index.checkpoint.appeared.get(subject.books_name), container.finished
    # Decision 371: the metadata may be torn, or that of an earlier slot. A job that ran and ended
    # between two sweeps was booked before it ended.
    if container.state.alive or appeared is None or appeared.inherited or stopped is None:
        return False
    missed_at = appeared.missed_at
    return missed_at is not None and to_boot_time(stopped, index.snapshot) < missed_at


def _has_claimed(subject: Subject, index: BooksIndex) -> bool:
    """The container of a booking names the allocation in its label, or was made for its process."""
    elsewhere = _find_elsewhere(subject, index)
    # Decision 231: bound by its devices.
    if elsewhere is not None and subject.record is not None and subject.record.processes:
        return True
    # Decision 183: a caller that knows the ID came after the allocation, whatever the clocks show.
    return find_claim(subject.record, subject.container or elsewhere) is not None


def _find_elsewhere(subject: Subject, index: BooksIndex) -> Container | None:
    """The container of a booking that has another name than the books have."""
    if subject.container is not None or subject.identity is None or index.engine is None:
        return None
    return index.engine.containers.get(subject.identity.id)


def anchor_creations(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint, names: Iterable[ContainerName]
) -> Iterator[tuple[str, AnchoredTime]]:
    """Creations that the last sweep did not see: they began after it, whatever the clock shows.

    An allocation counts only while there is no container, which would be better evidence.
    """
    # What an admin took back has an old `allocated_at` in its restored record; it must not look
    # like a creation that has just begun.
    taken_back = {
        name for undone_change in checkpoint.undone.values() for name in undone_change.records
    }
    operations = {} if isinstance(snapshot.operations, Unknown) else snapshot.operations
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    for name in names:
        attempt, record = operations.get(name), records.get(name)
        if attempt is not None and attempt.latest_start is not None:
            key = f"pending|{name}"
            yield from _anchor_start(
                key, str(attempt.started), attempt.latest_start, snapshot, checkpoint
            )
        absent = name not in engine.by_name and name not in taken_back
        if absent and isinstance(record, Record) and record.allocated_at is not None:
            text = record.allocated_text or str(record.allocated_at)
            yield from _anchor_start(
                f"allocated|{name}", text, record.allocated_at, snapshot, checkpoint
            )


def _anchor_start(
    key: str, anchor: str, at: Wall, snapshot: Snapshot, checkpoint: Checkpoint
) -> Iterator[tuple[str, AnchoredTime]]:
    anchored = checkpoint.starts.get(key)
    if anchored is None or anchored.anchor != anchor:
        # After a lost checkpoint or a reboot, an old creation looks like a new one; the later
        # time only prolongs a protection.
        is_forgotten = checkpoint.swept_at is None and checkpoint.has_baseline
        not_before = snapshot.now.boot if is_forgotten else checkpoint.swept_at
        yield key, AnchoredTime(anchor=anchor, at=to_boot_time(at, snapshot, not_before))
