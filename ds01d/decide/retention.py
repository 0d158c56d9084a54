"""The verdict on a stopped container: it holds its slots until its retention is over. Pure."""

from __future__ import annotations

from ds01d.decide.deadlines import Deadlines
from ds01d.decide.index import BooksIndex
from ds01d.decide.liveness import describe_living, describe_use
from ds01d.decide.subject import Subject
from ds01d.model.containers import Container, State
from ds01d.model.devices import GpuProcess
from ds01d.model.holding import Free, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.limits import Limits
from ds01d.model.primitives import Boot, SlotId, Source, Unknown, Wall


def decide_stopped(
    subject: Subject, container: Container, index: BooksIndex, deadlines: Deadlines
) -> Verdict:
    """Holds what is booked (or was, by its metadata) until its retention ends.

    Invariant: the retention ends only at a moment that follows from a known stop and from limits
    that were read; without one of them the container holds.
    """
    if not subject.slots and subject.record is None:
        evidence = f"docker: {container.state}, nothing booked"
        return subject.make_holds(frozenset(), VerdictReason.HOLD, evidence)
    stopped, since_text = _find_stop_time(subject, container, index)
    # Anchored to CLOCK_BOOTTIME at first sight, whatever the limits are: a later change of the
    # limits or a step of the clock then moves no start.
    start = _find_start(subject, container, stopped, index, deadlines)
    if start is None:
        reason = f"{container.state}, but its stop time is unknown"
        return Undecided(needs=Source.DOCKER, reason=reason)
    lost_text = "" if subject.booked else "; it has metadata but lost its booking"
    why = VerdictReason.LOST if lost_text else VerdictReason.HOLD
    evidence = f"docker: {container.state}, {since_text}{lost_text}"
    # Invariant 5: limits that cannot be read end no hold.
    if isinstance(index.limits, Unknown):
        unread = f"limits: {index.limits.reason}: its hold does not end"
        return subject.make_holds(subject.slots, why, evidence, unread)
    rule = index.limits.find_hold(subject.user, container.type)
    rule_text = f"limits: {rule.source}" + (f" ({rule.problem})" if rule.problem else "")
    if rule.seconds is None:
        return subject.make_holds(subject.slots, why, evidence, f"{rule_text}: held for ever")
    hold_s = rule.seconds
    # A container that was created and not started yet is still within its creation: its start may
    # follow at any moment.
    if _is_never_started(container):
        hold_s = max(hold_s, index.policy.creation_grace_s)
    # Decision 3: after a gap in Docker's answers the container may have been started and stopped
    # again unseen, so the grace starts again.
    watched = (index.checkpoint.since or 0.0) + index.policy.absence_grace_s
    end = Boot(max(start + hold_s, watched))
    left_s = end - index.snapshot.now.boot
    if left_s > 0:
        remaining = f"{rule_text}: held {hold_s:.0f} s, {left_s:.0f} s more"
        return subject.make_holds(subject.slots, why, evidence, remaining, until=end)
    over = f"{rule_text}: held {hold_s:.0f} s, over for {-left_s:.0f} s"
    # Decision 227: its owner's `docker start` would share the slots with their new holder.
    keeps = index.policy.expired_holds == "report" and not _is_freed_by_stop(container, index)
    if keeps and subject.booked:
        return subject.make_holds(subject.booked, VerdictReason.OVERDUE, evidence, over)
    return _end_retention(subject, container, index, end, evidence, over)


def _end_retention(
    subject: Subject, container: Container, index: BooksIndex, end: Boot, *evidence: str
) -> Free:
    """Free since `end`, but for limits that changed just now and processes of its own."""
    # Decision 107: a file that is being written in place may be valid and shorter, so new limits
    # must settle before they end a hold.
    wait = index.limits_settled - index.snapshot.now.boot
    if wait > 0:
        settling = f"limits: they changed a moment ago: not before {wait:.0f} s from now"
        evidence = (*evidence, settling)
    containers = subject.former | {container.id}

    def describe_own(process: GpuProcess, slot: SlotId) -> str | None:
        if process.container not in containers:
            return None
        return f"its process {process.pid} ({process.command}) uses slot {slot}"

    return Free(
        proof=Proof.EXPIRED,
        why=VerdictReason.HOLD_OVER,
        due=max(end, index.limits_settled),
        since=end,
        known_id=container.id,
        evidence=evidence,
        # Decision 226: its stop is all that counts.
        is_reported=_is_freed_by_stop(container, index),
        blocked=describe_living(containers, index.snapshot.living)
        or describe_use(subject, index, describe_own),
    )


def _is_freed_by_stop(container: Container, index: BooksIndex) -> bool:
    """A container of a type that keeps nothing once it has run and stopped."""
    limits = index.limits
    # One that was created only is about to start; `dead` or `removing` may be a stop that failed.
    has_run = container.state is State.EXITED and container.finished is not None
    return has_run and isinstance(limits, Limits) and container.type in limits.freed_types


def _find_stop_time(
    subject: Subject, container: Container, index: BooksIndex
) -> tuple[Wall | None, str]:
    """Since when a container is stopped: Docker's time, else the metadata's `stopped_at`."""
    if _is_never_started(container):
        docker, verb = container.created, "never started, created"
    else:
        docker, verb = container.finished, "finished"
    if docker is not None:
        return docker, f"{verb} {index.snapshot.now.wall - docker:.0f} s ago"
    stopped = subject.record.stopped_at if subject.record is not None else None
    if stopped is None and container.id in index.checkpoint.removing:
        return None, "first seen so, Docker has no time"
    return stopped, "stopped_at of its metadata counts, Docker has no time"


def _is_never_started(container: Container) -> bool:
    """Whether it was created and no more, also when its removal has begun and perhaps failed."""
    if container.started is not None:
        return False
    if container.state is State.CREATED:
        return True
    return container.state in (State.REMOVING, State.DEAD) and container.finished is None


def _find_start(
    subject: Subject,
    container: Container,
    stopped: Wall | None,
    index: BooksIndex,
    deadlines: Deadlines,
) -> Boot | None:
    """The later of the stop and the allocation, on CLOCK_BOOTTIME; None if it is not known.

    One that is being removed and of which nothing else is known stopped when that was first seen.
    """
    identity, floor = subject.identity, None
    # Decision 9: FinishedAt is a wall-clock time; after a step of the clock it would end a hold too
    # early. So it counts from when the container was last seen alive, or not yet there, at least.
    if identity is not None and identity.id == container.id:
        floor = identity.alive_at
        if floor is None or (identity.unborn_at is not None and identity.unborn_at > floor):
            floor = identity.unborn_at
    if stopped is None:
        start = index.checkpoint.removing.get(container.id)
    else:
        start = deadlines.anchor_time(
            f"stopped|{subject.name}",
            f"{container.id}|{stopped}",
            stopped,
            not_before=floor,
            before=f"stopped|{subject.books_name}",
        )
    record = subject.record
    # A slot that was given to a stopped container is held from the allocation on, or it would be
    # released at once.
    if start is not None and record is not None and record.allocated_at is not None:
        text = record.allocated_text or str(record.allocated_at)
        key = f"allocated|{subject.books_name}"
        start = max(start, deadlines.anchor_time(key, text, record.allocated_at))
    return start
