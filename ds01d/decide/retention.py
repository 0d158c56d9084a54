"""The verdict on a stopped container: it holds its slots until its retention is over. Pure."""

from __future__ import annotations

from ds01d.decide.absence import is_blind
from ds01d.decide.deadlines import Deadlines
from ds01d.decide.former_containers import describe_living, former_ids
from ds01d.decide.holds import find_recorded_slot, make_holds
from ds01d.decide.index import BooksIndex
from ds01d.model.containers import Container, State
from ds01d.model.holding import Free, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import (
    Boot,
    ContainerId,
    SlotId,
    Source,
    Unknown,
    Wall,
)


def decide_stopped(container: Container, index: BooksIndex, clock: Deadlines) -> Verdict:
    """Holds what is booked (or was, by its metadata) until its hold ends."""
    name = container.name
    booked = index.find_booked_slots(name)
    slots = booked or find_recorded_slot(name, index)
    if not slots and index.find_record(name) is None:
        return make_holds(
            name,
            frozenset(),
            VerdictReason.HOLD,
            index,
            f"docker: {container.state}, nothing booked",
        )
    stopped, since_text = _find_stop_time(container, index)
    # Anchored to CLOCK_BOOTTIME at first sight, whatever the limits are: a later change of the
    # limits or a step of the clock then moves no start.
    start = _find_retention_start(container, stopped, index, clock)
    if start is None:
        return Undecided(
            needs=Source.DOCKER, reason=f"{container.state}, but its stop time is unknown"
        )
    lost_text = "" if booked else "; it has metadata but lost its booking"
    why = VerdictReason.LOST if lost_text else VerdictReason.HOLD
    evidence_text = f"docker: {container.state}, {since_text}{lost_text}"
    # Invariant 5: limits that cannot be read end no hold.
    if isinstance(index.limits, Unknown):
        return make_holds(
            name,
            slots,
            why,
            index,
            evidence_text,
            f"limits: {index.limits.reason}: its hold does not end",
        )
    rule = index.limits.find_hold(index.find_user(name))
    rule_text = f"limits: {rule.source}" + (f" ({rule.problem})" if rule.problem else "")
    if rule.seconds is None:
        return make_holds(name, slots, why, index, evidence_text, f"{rule_text}: held for ever")
    hold = rule.seconds
    # A container that was created and not started yet is still within its creation: its start may
    # follow at any moment.
    if _never_started(container):
        hold = max(hold, index.policy.creation_grace_s)
    # Decision 3: after a gap in Docker's answers the container may have been started and stopped
    # again unseen, so the grace starts again.
    watched = (index.checkpoint.since or 0.0) + index.policy.absence_grace_s
    end = max(start + hold, watched)
    left_s = end - index.snapshot.now.boot
    if left_s > 0:
        remaining = f"{rule_text}: held {hold:.0f} s, {left_s:.0f} s more"
        return make_holds(name, slots, why, index, evidence_text, remaining, until=Boot(end))
    containers = frozenset({container.id}) | former_ids(name, index)
    evidence = [evidence_text, f"{rule_text}: held {hold:.0f} s, over for {-left_s:.0f} s"]
    # Decision 107: a file that is being written in place may be valid and shorter, so new limits
    # must settle before they end a hold.
    wait = index.limits_settled - index.snapshot.now.boot
    if wait > 0:
        evidence.append(f"limits: they changed a moment ago: not before {wait:.0f} s from now")
    return Free(
        proof=Proof.EXPIRED,
        why=VerdictReason.HOLD_OVER,
        due=Boot(max(end, index.limits_settled)),
        since=Boot(end),
        known_id=container.id,
        evidence=tuple(evidence),
        blocked=describe_living(containers, index.snapshot.living)
        or _describe_own_process(containers, slots, index, booked=bool(booked)),
    )


def _describe_own_process(
    containers: frozenset[ContainerId], slots: frozenset[SlotId], index: BooksIndex, *, booked: bool
) -> str | None:
    """Why stopped containers may use a slot all the same; None if NVML shows that they do not.

    For a record without a booking a sick GPU need not show it, as for one that is absent.
    """
    for slot in sorted(slots):
        processes = index.find_processes(slot)
        # Decision 154: nobody has the slot by a record without a booking, so it does not wait for a
        # sick GPU. Decision 63: a booking does.
        if not booked and is_blind(processes, index):
            continue
        if isinstance(processes, Unknown):
            return processes.reason
        for process in processes or ():
            if isinstance(process.container, Unknown):
                return f"process {process.pid} on slot {slot}: {process.container.reason}"
            if process.container in containers:
                return f"its process {process.pid} ({process.command}) uses slot {slot}"
    return None


def _find_stop_time(container: Container, index: BooksIndex) -> tuple[Wall | None, str]:
    """Since when a container is stopped: Docker's time, else the metadata's `stopped_at`."""
    if _never_started(container):
        docker, verb = container.created, "never started, created"
    else:
        docker, verb = container.finished, "finished"
    if docker is not None:
        return docker, f"{verb} {index.snapshot.now.wall - docker:.0f} s ago"
    record = index.find_record(container.name)
    stopped = record.stopped_at if record is not None else None
    if stopped is None and container.id in index.checkpoint.removing:
        return None, "first seen so, Docker has no time"
    return stopped, "stopped_at of its metadata counts, Docker has no time"


def _never_started(container: Container) -> bool:
    """Whether it was created and no more, also when its removal has begun and perhaps failed."""
    if container.started is not None:
        return False
    leaving = container.state in {State.REMOVING, State.DEAD} and container.finished is None
    return leaving or container.state is State.CREATED


def _find_retention_start(
    container: Container, stopped: Wall | None, index: BooksIndex, clock: Deadlines
) -> Boot | None:
    """The later of the stop and the allocation, on CLOCK_BOOTTIME; None if it is not known.

    One that is being removed and of which nothing else is known stopped when that was first seen.

    It cannot have stopped before it was last seen living, nor before it was there at all, whatever
    the wall clock shows.
    """
    name, books_name = container.name, index.name_in_books(container.name)
    identity = index.checkpoint.identities.get(books_name)
    seen_at: tuple[Boot | None, ...] = ()
    if identity is not None and identity.id == container.id:
        seen_at = (identity.alive_at, identity.unborn_at)
    # Decision 9: FinishedAt is a wall-clock time; after a step of the clock it would end a hold too
    # early.
    floor = max([moment for moment in seen_at if moment is not None], default=None)
    if stopped is None:
        start = index.checkpoint.removing.get(container.id)
    else:
        start = clock.anchor_time(
            f"stopped|{name}",
            f"{container.id}|{stopped}",
            stopped,
            not_before=floor,
            before=f"stopped|{books_name}",
        )
    if start is None:
        return None
    record = index.find_record(name)
    # A slot that was given to a stopped container is held from the allocation on, or it would be
    # released at once.
    if record is not None and record.allocated_at is not None:
        text = record.allocated_text or str(record.allocated_at)
        start = max(start, clock.anchor_time(f"allocated|{books_name}", text, record.allocated_at))
    return start
