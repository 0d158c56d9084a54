"""The verdict: what a container rightly holds. The heart of ds01d: small, pure, total.

The first row of the table (DESIGN, "Holdings, in words") that matches wins. Whatever is in doubt
is Undecided, and then the books keep what they say.
"""

from __future__ import annotations

from typing import NamedTuple

from ds01d.decide.absence import (
    Deadlines,
    creation_end,
    decide_absent,
    describe_living,
    former_ids,
    is_blind,
)
from ds01d.decide.index import BooksIndex
from ds01d.model.containers import Container, GpuRequestKind, State
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import (
    Boot,
    ContainerId,
    ContainerName,
    DeviceUuid,
    SlotId,
    Source,
    Unknown,
    Wall,
)


def decide_verdict(name: ContainerName, index: BooksIndex, clock: Deadlines) -> Verdict:
    """Decide what `name` rightly holds. Pure and total: every name gets one, with evidence."""
    # Invariant 1: a source that failed is unknown, never empty. Nothing can be decided without the
    # list of containers, so the books stay as they are.
    if isinstance(index.snapshot.docker, Unknown):
        return Undecided(needs=Source.DOCKER, reason=index.snapshot.docker.reason)
    if isinstance(index.snapshot.metadata, Unknown):
        return Undecided(needs=Source.METADATA, reason=index.snapshot.metadata.reason)
    container = index.find_container(name)
    if container is not None and not index.is_managed(container):
        evidence = "docker: no label, no DS01 name, no booking"
        return _make_holds(name, frozenset(), VerdictReason.FOREIGN, index, evidence)
    # A pinned container is exempt from every later rule: an admin has asked for exactly this
    # booking, also where it contradicts the request.
    if container is not None and container.pinned:
        return _make_holds(
            name,
            index.find_booked_slots(name),
            VerdictReason.PINNED,
            index,
            "docker: ds01.protected=true",
        )
    # Before the rule for absent names: a wrapper books first and creates the container minutes
    # later, after it has pulled the image.
    creating = creation_end(name, index, clock)
    if creating is not None:
        return _decide_creating(name, container, index, *creating)
    # Decision 67: a booking belongs to a container ID. Under its old name nothing is left to hold,
    # but the proof is the rename and not an absence.
    if container is None and (after := index.renames.current_name.get(name)) is not None:
        return _decide_renamed(name, after, index)
    if container is None:
        booked = index.find_booked_slots(name)
        return decide_absent(
            name, booked or _find_recorded_slot(name, index), index, booked=bool(booked)
        )
    # An inspect that failed: what the container has is not known, although it is listed.
    if isinstance(container.request, Unknown):
        return Undecided(needs=Source.DOCKER, reason=container.request.reason)
    if container.state.alive:
        return _decide_living(container, index)
    return _decide_stopped(container, index, clock)


def _make_holds(
    name: ContainerName,
    slots: frozenset[SlotId],
    why: VerdictReason,
    index: BooksIndex,
    *evidence: str,
    until: Boot | None = None,
) -> Holds:
    return Holds(slots=slots, user=index.find_user(name), why=why, evidence=evidence, until=until)


def _decide_creating(
    name: ContainerName, container: Container | None, index: BooksIndex, end: Boot, reason: str
) -> Verdict:
    """Holds what is booked, else the slot in its metadata, and the devices that it uses."""
    slots = index.find_booked_slots(name) or _find_recorded_slot(name, index)
    if container is not None and container.state.alive:
        requested = _find_requested(container, index)
        # A container that runs already may have more than its booking lists; the booking must not
        # be moved while the wrapper still writes.
        slots |= requested.slots if slots or _may_adopt(requested, index) else frozenset()
    left_s = end - index.snapshot.now.boot
    return _make_holds(
        name,
        slots,
        VerdictReason.CREATING,
        index,
        f"{reason}; creation grace for {left_s:.0f} s more",
        until=end,
    )


def _decide_renamed(name: ContainerName, new_name: ContainerName, index: BooksIndex) -> Verdict:
    identity = index.checkpoint.identities[name]
    since = index.checkpoint.absent.get(name, index.snapshot.now.boot)
    return Free(
        proof=Proof.RENAMED,
        why=VerdictReason.RENAMED,
        due=since,
        since=since,
        known_id=identity.id,
        renamed_to=new_name,
        evidence=(f"docker: container {identity.id[:12]} was renamed to {new_name}",),
    )


class Requested(NamedTuple):
    """The slots of a living container's request.

    `exact`: the devices are named one by one, all of them are known, and each has a slot; only then
    may a booking be moved or made by it.
    """

    slots: frozenset[SlotId]
    exact: bool
    evidence: str


def find_resolved_devices(container: Container, index: BooksIndex) -> frozenset[DeviceUuid] | None:
    """The devices that a container's request meant when it started; None = not known."""
    resolved = index.checkpoint.resolved.get(container.id)
    return (
        resolved.devices if resolved is not None and resolved.started == container.started else None
    )


def _find_requested(container: Container, index: BooksIndex) -> Requested:
    request = container.request
    if isinstance(request, Unknown):
        return Requested(frozenset(), False, request.reason)
    # `all`, a count or no request at all match no particular slot, so they can neither confirm nor
    # contradict a booking (decision 18).
    if request.ask is not GpuRequestKind.NAMED:
        return Requested(
            frozenset(), False, f"docker: {container.state}, asks for {request.describe()}"
        )
    texts = request.describe()
    devices = find_resolved_devices(container, index)
    if devices is None:
        return Requested(
            frozenset(),
            False,
            f"docker: {container.state}, asks for {texts}; what that meant is not known",
        )
    slots = {device: index.table.slot_of.get(device) for device in devices}
    without_slot = sorted(device for device, slot in slots.items() if slot is None)
    evidence = f"docker: {container.state}, asks for {texts}"
    if without_slot:
        evidence += f"; {', '.join(without_slot)} has no slot"
    return Requested(
        frozenset(s for s in slots.values() if s is not None), not without_slot, evidence
    )


def _decide_living(container: Container, index: BooksIndex) -> Verdict:
    """Holds the slots of its request and the booked ones that its processes use.

    So it does what is booked for one that had the name before, and is gone for Docker and not for
    the kernel.
    """
    name = container.name
    booked = index.find_booked_slots(name)
    requested = _find_requested(container, index)
    if not booked:
        slots = requested.slots if _may_adopt(requested, index) else frozenset()
        # Decision 18: the slot in its metadata stays its own; otherwise the slot would
        # be given to another container beside it.
        if not requested.exact:  # what it was given stays its own, as if the booking were there
            slots = _find_recorded_slot(name, index)
        return _make_holds(name, slots, VerdictReason.RUNNING, index, requested.evidence)
    if not requested.exact:
        return _make_holds(
            name, booked | requested.slots, VerdictReason.RUNNING, index, requested.evidence
        )
    surplus = booked - requested.slots
    slots_held, evidence = requested.slots, [requested.evidence]
    # A container that had the name before may have lost its shim and still run: its processes use
    # the slot that the books list under this name.
    former = former_ids(name, index)
    outlived = describe_living(former, index.snapshot.living) if surplus else None
    if outlived is not None:
        return _make_holds(
            name,
            booked | requested.slots,
            VerdictReason.RUNNING,
            index,
            requested.evidence,
            outlived,
        )
    for slot in sorted(surplus):
        # A slot outside the request is released only where NVML shows that no process of the
        # container uses it.
        used = _find_use(former | {container.id}, slot, index)
        if isinstance(used, Unknown):
            return Undecided(needs=Source.NVML, reason=used.reason, evidence=tuple(evidence))
        if used:
            slots_held |= {slot}
            evidence += used
    return _make_holds(name, slots_held, VerdictReason.RUNNING, index, *evidence)


def _find_use(
    containers: frozenset[ContainerId], slot: SlotId, index: BooksIndex
) -> list[str] | Unknown:
    """What shows that containers use a slot which was not asked for; nothing if they do not."""
    processes = index.find_processes(slot)
    if isinstance(processes, Unknown):
        return processes
    if not index.has_process_list(slot):
        return [f"nvml: the device of {slot} is not listed, and so no process on it"]
    used = []
    for process in processes or ():
        # A process of unknown origin may be the container's own, so it must count as a use.
        if isinstance(process.container, Unknown):
            reason = f"process {process.pid}: {process.container.reason}"
            return Unknown(source=Source.NVML, reason=reason)
        if process.container in containers:
            used.append(f"nvml: its process {process.pid} uses {slot}")
    return used


def _may_adopt(requested: Requested, index: BooksIndex) -> bool:
    """Whether what nobody booked is booked for who has it."""
    return requested.exact and index.policy.adopt == "managed"


def _decide_stopped(container: Container, index: BooksIndex, clock: Deadlines) -> Verdict:
    """Holds what is booked (or was, by its metadata) until its hold ends."""
    name = container.name
    booked = index.find_booked_slots(name)
    slots = booked or _find_recorded_slot(name, index)
    if not slots and index.find_record(name) is None:
        return _make_holds(
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
        return _make_holds(
            name,
            slots,
            why,
            index,
            evidence_text,
            f"limits: {index.limits.reason}: its hold does not end",
        )
    rule = index.limits.hold(index.find_user(name))
    rule_text = f"limits: {rule.source}" + (f" ({rule.problem})" if rule.problem else "")
    if rule.seconds is None:
        return _make_holds(name, slots, why, index, evidence_text, f"{rule_text}: held for ever")
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
        return _make_holds(name, slots, why, index, evidence_text, remaining, until=Boot(end))
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


def _find_recorded_slot(name: ContainerName, index: BooksIndex) -> frozenset[SlotId]:
    """The slot in the metadata, if the table has it."""
    record = index.find_record(name)
    if record is None or record.gpu_id is None:
        return frozenset()
    slot = index.table.moved.get(record.gpu_id, record.gpu_id)
    return frozenset((slot,)) if slot in index.table.slots else frozenset()
