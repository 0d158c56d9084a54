"""The verdict: what a container rightly holds. The heart of ds01d: small, pure, total.

The first rule of `decide_verdict` that matches wins. Whatever is in doubt is Undecided, and then
the books keep what they say.
"""

from __future__ import annotations

from typing import NamedTuple

from ds01d.decide.absence import decide_absent
from ds01d.decide.creations import find_creation_end
from ds01d.decide.deadlines import Deadlines
from ds01d.decide.index import BooksIndex
from ds01d.decide.liveness import describe_living
from ds01d.decide.retention import decide_stopped
from ds01d.decide.subject import Subject
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


def decide_verdict(subject: Subject, index: BooksIndex, deadlines: Deadlines) -> Verdict:
    """Decide what a name rightly holds. Total: every name gets one, with evidence.

    Pure but for `deadlines`, which collects the times that it converts, for the checkpoint.
    """
    # Invariant 1: a source that failed is unknown, never empty. Nothing can be decided without the
    # list of containers, so the books stay as they are.
    if isinstance(index.snapshot.docker, Unknown):
        return Undecided(needs=Source.DOCKER, reason=index.snapshot.docker.reason)
    if isinstance(index.snapshot.metadata, Unknown):
        return Undecided(needs=Source.METADATA, reason=index.snapshot.metadata.reason)
    container = subject.container
    if container is not None and not index.is_managed(container):
        evidence = "docker: no label, no DS01 name, no booking"
        return subject.make_holds(frozenset(), VerdictReason.FOREIGN, evidence)
    # A pinned container is exempt from every later rule: its label asks for exactly this booking,
    # also where it contradicts the request. Any creator of a container can set it.
    if container is not None and container.pinned:
        evidence = "docker: ds01.protected=true"
        return subject.make_holds(subject.booked, VerdictReason.PINNED, evidence)
    # Before the rule for absent names: a wrapper books first and creates the container minutes
    # later, after it has pulled the image.
    creating = find_creation_end(subject, index, deadlines)
    if creating is not None:
        return _decide_creating(subject, index, *creating)
    if container is None:
        # Decision 67: a booking belongs to a container ID. Under its old name nothing is left to
        # hold, but the proof is the rename and not an absence.
        new_name = index.renames.current_name.get(subject.name)
        if new_name is not None:
            return _decide_renamed(subject.name, new_name, index)
        return decide_absent(subject, index)
    # An inspect that failed: what the container has is not known, although it is listed.
    if isinstance(container.request, Unknown):
        return Undecided(needs=Source.DOCKER, reason=container.request.reason)
    if container.state.alive:
        return _decide_living(subject, container, index)
    return decide_stopped(subject, container, index, deadlines)


def _decide_creating(subject: Subject, index: BooksIndex, end: Boot, reason: str) -> Verdict:
    """Holds what is booked, else the slot in its metadata.

    Once it runs, its request as well, if it has a slot already or may be adopted.
    """
    slots, container = subject.slots, subject.container
    if container is not None and container.state.alive:
        requested = _find_requested(container, index)
        # A container that runs already may have more than its booking lists; the booking must not
        # be moved while the wrapper still writes.
        slots |= requested.slots if slots or _may_adopt(requested, index) else frozenset()
    left_s = end - index.snapshot.now.boot
    evidence = f"{reason} for {left_s:.0f} s more"
    return subject.make_holds(slots, VerdictReason.CREATING, evidence, until=end)


def _decide_renamed(name: ContainerName, new_name: ContainerName, index: BooksIndex) -> Verdict:
    container_id = index.checkpoint.identities[name].id
    since = index.checkpoint.absent.get(name, index.snapshot.now.boot)
    return Free(
        proof=Proof.RENAMED,
        why=VerdictReason.RENAMED,
        due=since,
        since=since,
        known_id=container_id,
        renamed_to=new_name,
        evidence=(f"docker: container {container_id[:12]} was renamed to {new_name}",),
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
    evidence = f"docker: {container.state}, asks for {request.describe()}"
    # `all`, a count or no request at all match no particular slot, so they can neither confirm nor
    # contradict a booking (decision 18).
    if request.ask is not GpuRequestKind.NAMED:
        return Requested(frozenset(), False, evidence)
    devices = find_resolved_devices(container, index)
    if devices is None:
        return Requested(frozenset(), False, f"{evidence}; what that meant is not known")
    slots = {device: index.table.slot_of.get(device) for device in devices}
    without_slot = sorted(device for device, slot in slots.items() if slot is None)
    if without_slot:
        evidence += f"; {', '.join(without_slot)} has no slot"
    return Requested(
        frozenset(s for s in slots.values() if s is not None), not without_slot, evidence
    )


def _decide_living(subject: Subject, container: Container, index: BooksIndex) -> Verdict:
    """Holds what an exact request names, and the booked slots that its processes use.

    Without a booking only if it may be adopted. By any other request it holds what is booked, else
    the slot in its metadata. All that is booked stays while a process of a former container of that
    name runs, although Docker no longer lists it.
    """
    booked, requested = subject.booked, _find_requested(container, index)
    evidence = [requested.evidence]

    def hold_slots(slots: frozenset[SlotId]) -> Verdict:
        return subject.make_holds(slots, VerdictReason.RUNNING, *evidence)

    if not requested.exact:
        # Decision 18: the slot in its metadata stays its own, as if the booking were there;
        # otherwise it would be given to another container beside it.
        return hold_slots(booked | requested.slots if booked else subject.slots)
    if not booked:
        return hold_slots(requested.slots if _may_adopt(requested, index) else frozenset())
    surplus = booked - requested.slots
    # A container that had the name before may have lost its shim and still run: its processes use
    # the slot that the books list under this name.
    still_running = describe_living(subject.former, index.snapshot.living) if surplus else None
    if still_running is not None:
        evidence.append(still_running)
        return hold_slots(booked | requested.slots)
    slots = requested.slots
    for slot in sorted(surplus):
        # A slot outside the request is released only where NVML shows that no process of the
        # container uses it.
        used = _find_use(subject.former | {container.id}, slot, index)
        if isinstance(used, Unknown):
            return Undecided(needs=Source.NVML, reason=used.reason, evidence=tuple(evidence))
        if used:
            slots |= {slot}
            evidence += used
    return hold_slots(slots)


def _find_use(
    containers: frozenset[ContainerId], slot: SlotId, index: BooksIndex
) -> list[str] | Unknown:
    """What shows that containers use a slot which was not asked for; nothing if they do not."""
    processes = index.processes.find_processes(slot)
    if isinstance(processes, Unknown):
        return processes
    if not index.processes.has_process_list(slot):
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
    """Whether requested slots without a booking may be booked for the container."""
    return requested.exact and index.policy.adopt == "managed"
