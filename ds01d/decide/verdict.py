"""The verdict: what a container rightly holds. The heart of ds01d: small, pure, total.

The first row of the table (DESIGN, "Holdings, in words") that matches wins. Whatever is in doubt
is Undecided, and then the books keep what they say.
"""

from __future__ import annotations

from typing import NamedTuple

from ds01d.decide.absence import decide_absent
from ds01d.decide.creations import creation_end
from ds01d.decide.deadlines import Deadlines
from ds01d.decide.former_containers import describe_living, former_ids
from ds01d.decide.holds import find_recorded_slot, make_holds
from ds01d.decide.index import BooksIndex
from ds01d.decide.retention import decide_stopped
from ds01d.model.containers import Container, GpuRequestKind
from ds01d.model.holding import Free, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.primitives import (
    Boot,
    ContainerId,
    ContainerName,
    DeviceUuid,
    SlotId,
    Source,
    Unknown,
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
        return make_holds(name, frozenset(), VerdictReason.FOREIGN, index, evidence)
    # A pinned container is exempt from every later rule: an admin has asked for exactly this
    # booking, also where it contradicts the request.
    if container is not None and container.pinned:
        return make_holds(
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
            name, booked or find_recorded_slot(name, index), index, booked=bool(booked)
        )
    # An inspect that failed: what the container has is not known, although it is listed.
    if isinstance(container.request, Unknown):
        return Undecided(needs=Source.DOCKER, reason=container.request.reason)
    if container.state.alive:
        return _decide_living(container, index)
    return decide_stopped(container, index, clock)


def _decide_creating(
    name: ContainerName, container: Container | None, index: BooksIndex, end: Boot, reason: str
) -> Verdict:
    """Holds what is booked, else the slot in its metadata, and the devices that it uses."""
    slots = index.find_booked_slots(name) or find_recorded_slot(name, index)
    if container is not None and container.state.alive:
        requested = _find_requested(container, index)
        # A container that runs already may have more than its booking lists; the booking must not
        # be moved while the wrapper still writes.
        slots |= requested.slots if slots or _may_adopt(requested, index) else frozenset()
    left_s = end - index.snapshot.now.boot
    return make_holds(
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
            slots = find_recorded_slot(name, index)
        return make_holds(name, slots, VerdictReason.RUNNING, index, requested.evidence)
    if not requested.exact:
        return make_holds(
            name, booked | requested.slots, VerdictReason.RUNNING, index, requested.evidence
        )
    surplus = booked - requested.slots
    slots_held, evidence = requested.slots, [requested.evidence]
    # A container that had the name before may have lost its shim and still run: its processes use
    # the slot that the books list under this name.
    former = former_ids(name, index)
    outlived = describe_living(former, index.snapshot.living) if surplus else None
    if outlived is not None:
        return make_holds(
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
    return make_holds(name, slots_held, VerdictReason.RUNNING, index, *evidence)


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
