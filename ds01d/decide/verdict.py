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


def decide_verdict(name: ContainerName, view: BooksIndex, clock: Deadlines) -> Verdict:
    """Decide what `name` rightly holds. Pure and total: every name gets one, with evidence."""
    if isinstance(view.snapshot.docker, Unknown):
        return Undecided(needs=Source.DOCKER, reason=view.snapshot.docker.reason)
    if isinstance(view.snapshot.metadata, Unknown):
        return Undecided(needs=Source.METADATA, reason=view.snapshot.metadata.reason)
    container = view.find_container(name)
    if container is not None and not view.is_managed(container):
        said = "docker: no label, no DS01 name, no booking"
        return _make_holds(name, frozenset(), VerdictReason.FOREIGN, view, said)
    if container is not None and container.pinned:
        return _make_holds(
            name,
            view.find_booked_slots(name),
            VerdictReason.PINNED,
            view,
            "docker: ds01.protected=true",
        )
    creating = creation_end(name, view, clock)
    if creating is not None:
        return _decide_creating(name, container, view, *creating)
    if container is None and (after := view.renames.current_name.get(name)) is not None:
        return _decide_renamed(name, after, view)
    if container is None:
        booked = view.find_booked_slots(name)
        return decide_absent(
            name, booked or _find_recorded_slot(name, view), view, booked=bool(booked)
        )
    if isinstance(container.request, Unknown):
        return Undecided(needs=Source.DOCKER, reason=container.request.reason)
    if container.state.alive:
        return _decide_living(container, view)
    return _decide_stopped(container, view, clock)


def _make_holds(
    name: ContainerName,
    slots: frozenset[SlotId],
    why: VerdictReason,
    view: BooksIndex,
    *evidence: str,
    until: Boot | None = None,
) -> Holds:
    return Holds(slots=slots, user=view.find_user(name), why=why, evidence=evidence, until=until)


def _decide_creating(
    name: ContainerName, container: Container | None, view: BooksIndex, end: Boot, reason: str
) -> Verdict:
    """Holds what is booked, what its metadata says it had booked, and what it really has."""
    slots = view.find_booked_slots(name) or _find_recorded_slot(name, view)
    if container is not None and container.state.alive:
        asked = _find_requested(container, view)
        slots |= asked.slots if slots or _may_adopt(asked, view) else frozenset()
    left = end - view.snapshot.now.boot
    return _make_holds(
        name,
        slots,
        VerdictReason.CREATING,
        view,
        f"{reason}; creation grace for {left:.0f} s more",
        until=end,
    )


def _decide_renamed(name: ContainerName, after: ContainerName, view: BooksIndex) -> Verdict:
    identity = view.checkpoint.identities[name]
    since = view.checkpoint.absent.get(name, view.snapshot.now.boot)
    return Free(
        proof=Proof.RENAMED,
        why=VerdictReason.RENAMED,
        due=since,
        since=since,
        known_id=identity.id,
        renamed_to=after,
        evidence=(f"docker: container {identity.id[:12]} is called {after} now",),
    )


class Requested(NamedTuple):
    """The slots of a living container's request.

    `exact`: the devices are named one by one, all of them are known, and each has a slot; only then
    may a booking be moved or made by it.
    """

    slots: frozenset[SlotId]
    exact: bool
    evidence: str


def find_resolved_devices(container: Container, view: BooksIndex) -> frozenset[DeviceUuid] | None:
    """The devices that a container's request meant when it started; None = not known."""
    known = view.checkpoint.resolved.get(container.id)
    return known.devices if known is not None and known.started == container.started else None


def _find_requested(container: Container, view: BooksIndex) -> Requested:
    request = container.request
    if isinstance(request, Unknown):
        return Requested(frozenset(), False, request.reason)
    if request.ask is not GpuRequestKind.NAMED:
        return Requested(
            frozenset(), False, f"docker: {container.state}, asks for {request.describe()}"
        )
    texts = request.describe()
    devices = find_resolved_devices(container, view)
    if devices is None:
        return Requested(
            frozenset(),
            False,
            f"docker: {container.state}, asks for {texts}; what that meant is not known",
        )
    slots = {device: view.table.slot_of.get(device) for device in devices}
    homeless = sorted(device for device, slot in slots.items() if slot is None)
    said = f"docker: {container.state}, asks for {texts}"
    if homeless:
        said += f"; {', '.join(homeless)} has no slot"
    return Requested(frozenset(s for s in slots.values() if s is not None), not homeless, said)


def _decide_living(container: Container, view: BooksIndex) -> Verdict:
    """Holds the slots of its request and the booked ones that its processes use.

    So it does what is booked for one that had the name before, and is gone for Docker and not for
    the kernel.
    """
    name = container.name
    booked = view.find_booked_slots(name)
    asked = _find_requested(container, view)
    if not booked:
        slots = asked.slots if _may_adopt(asked, view) else frozenset()
        if not asked.exact:  # what it was given stays its own, as if the booking were there
            slots = _find_recorded_slot(name, view)
        return _make_holds(name, slots, VerdictReason.RUNNING, view, asked.evidence)
    if not asked.exact:
        return _make_holds(name, booked | asked.slots, VerdictReason.RUNNING, view, asked.evidence)
    surplus = booked - asked.slots
    kept, evidence = asked.slots, [asked.evidence]
    former = former_ids(name, view)
    outlived = describe_living(former, view.snapshot.living) if surplus else None
    if outlived is not None:
        return _make_holds(
            name, booked | asked.slots, VerdictReason.RUNNING, view, asked.evidence, outlived
        )
    for slot in sorted(surplus):
        used = _find_use(former | {container.id}, slot, view)
        if isinstance(used, Unknown):
            return Undecided(needs=Source.NVML, reason=used.reason, evidence=tuple(evidence))
        if used:
            kept |= {slot}
            evidence += used
    return _make_holds(name, kept, VerdictReason.RUNNING, view, *evidence)


def _find_use(own: frozenset[ContainerId], slot: SlotId, view: BooksIndex) -> list[str] | Unknown:
    """What shows that containers use a slot which was not asked for; nothing if they do not."""
    processes = view.find_processes(slot)
    if isinstance(processes, Unknown):
        return processes
    if not view.has_process_list(slot):
        return [f"nvml: the device of {slot} is not listed, and so no process on it"]
    used = []
    for process in processes or ():
        if isinstance(process.container, Unknown):
            reason = f"process {process.pid}: {process.container.reason}"
            return Unknown(source=Source.NVML, reason=reason)
        if process.container in own:
            used.append(f"nvml: its process {process.pid} uses {slot}")
    return used


def _may_adopt(asked: Requested, view: BooksIndex) -> bool:
    """Whether what nobody booked is booked for who has it."""
    return asked.exact and view.policy.adopt == "managed"


def _decide_stopped(container: Container, view: BooksIndex, clock: Deadlines) -> Verdict:
    """Holds what is booked (or was, by its metadata) until its hold ends."""
    name = container.name
    booked = view.find_booked_slots(name)
    slots = booked or _find_recorded_slot(name, view)
    if not slots and view.find_record(name) is None:
        return _make_holds(
            name,
            frozenset(),
            VerdictReason.HOLD,
            view,
            f"docker: {container.state}, nothing booked",
        )
    stopped, told = _find_stop_time(container, view)
    start = _find_retention_start(
        container, stopped, view, clock
    )  # put on the clock whatever the limits say
    if start is None:
        return Undecided(
            needs=Source.DOCKER, reason=f"{container.state}, but since when is not known"
        )
    lost = "" if booked else "; it has metadata but lost its booking"
    why = VerdictReason.LOST if lost else VerdictReason.HOLD
    said = f"docker: {container.state}, {told}{lost}"
    if isinstance(view.limits, Unknown):
        return _make_holds(
            name, slots, why, view, said, f"limits: {view.limits.reason}: its hold does not end"
        )
    rule = view.limits.hold(view.find_user(name))
    rule_said = f"limits: {rule.source}" + (f" ({rule.problem})" if rule.problem else "")
    if rule.seconds is None:
        return _make_holds(name, slots, why, view, said, f"{rule_said}: held for ever")
    hold = rule.seconds
    if _never_started(container):
        hold = max(hold, view.policy.creation_grace_s)
    watched = (view.checkpoint.since or 0.0) + view.policy.absence_grace_s
    end = max(start + hold, watched)
    left = end - view.snapshot.now.boot
    if left > 0:
        about = f"{rule_said}: held {hold:.0f} s, {left:.0f} s more"
        return _make_holds(name, slots, why, view, said, about, until=Boot(end))
    own = frozenset({container.id}) | former_ids(name, view)
    evidence = [said, f"{rule_said}: held {hold:.0f} s, over for {-left:.0f} s"]
    wait = view.limits_settled - view.snapshot.now.boot
    if wait > 0:
        evidence.append(f"limits: they changed a moment ago: not before {wait:.0f} s from now")
    return Free(
        proof=Proof.EXPIRED,
        why=VerdictReason.HOLD_OVER,
        due=Boot(max(end, view.limits_settled)),
        since=Boot(end),
        known_id=container.id,
        evidence=tuple(evidence),
        blocked=describe_living(own, view.snapshot.living)
        or _describe_own_process(own, slots, view, booked=bool(booked)),
    )


def _describe_own_process(
    own: frozenset[ContainerId], slots: frozenset[SlotId], view: BooksIndex, *, booked: bool
) -> str | None:
    """Why stopped containers may use a slot all the same; None if NVML shows that they do not.

    For a record without a booking a sick GPU need not show it, as for one that is absent.
    """
    for slot in sorted(slots):
        processes = view.find_processes(slot)
        if not booked and is_blind(processes, view):
            continue
        if isinstance(processes, Unknown):
            return processes.reason
        for process in processes or ():
            if isinstance(process.container, Unknown):
                return f"process {process.pid} on slot {slot}: {process.container.reason}"
            if process.container in own:
                return f"its process {process.pid} ({process.command}) uses slot {slot}"
    return None


def _find_stop_time(container: Container, view: BooksIndex) -> tuple[Wall | None, str]:
    """Since when a container is stopped: Docker's time, else the metadata's `stopped_at`."""
    if _never_started(container):
        docker, word = container.created, "never started, created"
    else:
        docker, word = container.finished, "finished"
    if docker is not None:
        return docker, f"{word} {view.snapshot.now.wall - docker:.0f} s ago"
    record = view.find_record(container.name)
    stopped = record.stopped_at if record is not None else None
    if stopped is None and container.id in view.checkpoint.removing:
        return None, "first seen so, Docker has no time"
    return stopped, "stopped_at of its metadata counts, Docker has no time"


def _never_started(container: Container) -> bool:
    """Whether it was created and no more, also when its removal has begun and perhaps failed."""
    if container.started is not None:
        return False
    leaving = container.state in {State.REMOVING, State.DEAD} and container.finished is None
    return leaving or container.state is State.CREATED


def _find_retention_start(
    container: Container, stopped: Wall | None, view: BooksIndex, clock: Deadlines
) -> Boot | None:
    """The later of the stop and the allocation, on CLOCK_BOOTTIME; None if it is not known.

    One that is being removed and of which nothing else is known stopped when that was first seen.

    It cannot have stopped before it was last seen living, nor before it was there at all, whatever
    the wall clock says.
    """
    name, home = container.name, view.name_in_books(container.name)
    identity = view.checkpoint.identities.get(home)
    seen: tuple[Boot | None, ...] = ()
    if identity is not None and identity.id == container.id:
        seen = (identity.alive_at, identity.unborn_at)
    floor = max([moment for moment in seen if moment is not None], default=None)
    if stopped is None:
        start = view.checkpoint.removing.get(container.id)
    else:
        start = clock.anchor_time(
            f"stopped|{name}",
            f"{container.id}|{stopped}",
            stopped,
            not_before=floor,
            before=f"stopped|{home}",
        )
    if start is None:
        return None
    record = view.find_record(name)
    if record is not None and record.allocated_at is not None:
        text = record.allocated_text or str(record.allocated_at)
        start = max(start, clock.anchor_time(f"allocated|{home}", text, record.allocated_at))
    return start


def _find_recorded_slot(name: ContainerName, view: BooksIndex) -> frozenset[SlotId]:
    """The slot that the metadata says was booked, if there is such a slot."""
    record = view.find_record(name)
    if record is None or record.gpu_id is None:
        return frozenset()
    slot = view.table.moved.get(record.gpu_id, record.gpu_id)
    return frozenset((slot,)) if slot in view.table.slots else frozenset()
