"""Which container turns a reservation into a booking without having its name. Pure.

By its label, which the container's creator wrote: it counts only for a reservation of
the same owner whose own container does not exist, and for one container: the first by creation.
And by a reserved device, where a process reserved it and the container was made since. The books
then follow to its name as after a rename.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from math import inf

from ds01d.config import Config
from ds01d.decide.deadlines import to_boot_time
from ds01d.decide.exemptions import is_exempt
from ds01d.decide.identities import update_identity
from ds01d.decide.owner_guess import parse_slice_user
from ds01d.decide.ownership import choose_owner, find_named_user, has_user, parse_uid
from ds01d.model.books import AllocatorState, BadRecord, Record
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, Engine, RefKind, State
from ds01d.model.primitives import (
    BookingId,
    ContainerId,
    ContainerName,
    Unknown,
    UserName,
)
from ds01d.model.reservation import ProcessState, is_made_up
from ds01d.model.sanitized_logins import sanitize_login
from ds01d.model.snapshot import Snapshot


def bind_claimed(snapshot: Snapshot, checkpoint: Checkpoint, config: Config) -> Checkpoint:
    """The checkpoint in which each claimed reservation has the ID of the container behind it."""
    engine = snapshot.docker
    if not isinstance(engine, Engine):
        return checkpoint
    claimants = {
        **_find_users(snapshot, engine, checkpoint, config),
        **_find_claimants(snapshot, engine, checkpoint),
    }
    if not claimants:  # as nearly always
        return checkpoint
    identities = dict(checkpoint.identities)
    for name, container in claimants.items():
        # Decision 183: from here on it is a rename, which every part of ds01d knows.
        identities[name] = update_identity(
            container, identities.get(name), engine, checkpoint, snapshot.now.boot
        )
    return replace(checkpoint, identities=identities)


def find_claim(record: Record | BadRecord | None, container: Container | None) -> BookingId | None:
    """The allocation of a record, if the label of a container names it."""
    if not isinstance(record, Record) or record.booking is None or container is None:
        return None
    return record.booking if container.claimed_booking == record.booking else None


def find_claim_owner(container: Container, snapshot: Snapshot) -> UserName | None:
    """Whose a container is, for its claim: by the uid in its name, else by its record or labels.

    None also where its label and the slice in which it runs name different users.
    """
    # Decision 183: where the user database does not know the uid, no label stands in for it.
    if (uid := parse_uid(container.name)) is not None:
        return find_named_user(container.name, snapshot.passwd) or UserName(str(uid))
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    record = records.get(container.name)
    labels = {} if container.is_unnamed else container.labels
    readable = record if isinstance(record, Record) and _has_file(record) else None
    owner = choose_owner(container.name, readable, labels, snapshot.passwd, snapshot.logins)
    # Decision 250: the lab's wrapper lets anybody write a label, and puts the container into the
    # slice of who asked.
    is_refuted = (
        readable is None and owner is not None and _is_in_slice_of(container, owner) is False
    )
    return None if is_refuted else owner


def _is_in_slice_of(container: Container, user: UserName) -> bool | None:
    """Whether it runs in the slice of a user, or of another one; None: in nobody's."""
    written = parse_slice_user(container.cgroup_parent)
    return None if written is None else written in sanitize_login(user)


def _may_be_of(container: Container, user: UserName, snapshot: Snapshot) -> bool:
    """Whether neither its slice nor its name nor its label gives it to another user."""
    # Decision 250: nor does the name or label of another user take it out of its owner's quota.
    in_slice = _is_in_slice_of(container, user)
    if in_slice is not None:
        return in_slice
    return find_claim_owner(container, snapshot) in (None, user)


def _find_claimants(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint
) -> Mapping[ContainerName, Container]:
    """The container for each reservation that has none of its own."""
    if isinstance(snapshot.metadata, Unknown):
        return {}
    records = snapshot.metadata
    claiming = [
        container
        for container in engine.containers.values()
        if container.claimed_booking is not None
        # As nearly all: those that have their booking.
        and find_claim(records.get(container.name), container) is None
        # It would take the reservation with it.
        and container.state not in (State.REMOVING, State.DEAD)
    ]
    if not claiming:
        return {}
    # Until the books have followed, a bound container must not claim a copy of the record as well.
    bound = {
        identity.id
        for name, identity in checkpoint.identities.items()
        if find_claim(records.get(name), engine.containers.get(identity.id)) is not None
    }
    labelled: dict[BookingId, list[Container]] = defaultdict(list)
    for container in claiming:
        if container.claimed_booking is not None and container.id not in bound:
            labelled[container.claimed_booking].append(container)
    claimants: dict[ContainerName, Container] = {}
    for name, record in sorted(records.items()):
        if not isinstance(record, Record) or record.booking is None or not has_user(record):
            continue
        if record.booking not in labelled or not _is_vacant(name, engine, checkpoint):
            continue
        fitting = [
            container
            # Once: a copy of the record under another name gets no second container.
            for container in labelled.pop(record.booking)
            if find_claim_owner(container, snapshot) == record.user
        ]
        if fitting:
            claimants[name] = min(fitting, key=_order_by_creation)
    return claimants


def _find_users(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint, config: Config
) -> Mapping[ContainerName, Container]:
    """The container with a reserved device, for each reservation that a process made."""
    state, records = snapshot.state, snapshot.metadata
    if isinstance(records, Unknown) or not isinstance(state, AllocatorState):
        return {}
    reserved = sorted(
        (name, record)
        for name, record in records.items()
        if isinstance(record, Record)
        and record.processes
        and has_user(record)
        and _is_vacant(name, engine, checkpoint)
        # Decision 231: under a name that somebody chose, a container may come after this one.
        and (is_made_up(name) or snapshot.find_process_state(record) is ProcessState.ENDED)
    )
    if not reserved:  # as nearly always
        return {}
    # One that has a booking of its own, under whatever name, does not need this one.
    bound = {i.id for name, i in checkpoint.identities.items() if _has_file(records.get(name))}
    users: dict[ContainerName, Container] = {}
    for name, record in reserved:
        devices = _find_reserved_devices(name, state, checkpoint)
        fitting = [
            container
            for container in engine.containers.values()
            if container.id not in bound
            # Nothing is booked for it, so nothing of somebody's reservation either.
            and not is_exempt(container, config.exempt)
            and not _has_file(records.get(container.name))
            and container.state not in (State.REMOVING, State.DEAD)
            and _is_made_since(container, name, record, snapshot, checkpoint)
            and not devices.isdisjoint(_list_uuids(container))
            and record.user is not None
            and _may_be_of(container, record.user, snapshot)
        ]
        if fitting:
            # One container turns one reservation into its booking, not two of the same device.
            users[name] = min(fitting, key=_order_by_creation)
            bound.add(users[name].id)
    return users


def _has_file(record: Record | BadRecord | None) -> bool:
    """Whether it is written down; with Docker as the books others are derived.

    One that cannot be read has no digest either, and may be a booking.
    """
    return isinstance(record, BadRecord) or (record is not None and bool(record.digest))


def _find_reserved_devices(
    name: ContainerName, state: AllocatorState, checkpoint: Checkpoint
) -> frozenset[str]:
    slots = (state.slots[slot] for slot in state.find_slots(name))
    devices = (slot.uuid or checkpoint.slots.get(slot.id) for slot in slots)
    return frozenset(device for device in devices if device)


def _list_uuids(container: Container) -> frozenset[str]:
    """The devices that its request names by UUID, as the lab's allocator gives them out."""
    if isinstance(container.request, Unknown):
        return frozenset()
    return frozenset(r.text for r in container.request.devices if r.kind is RefKind.UUID)


def _is_made_since(
    container: Container,
    name: ContainerName,
    record: Record,
    snapshot: Snapshot,
    checkpoint: Checkpoint,
) -> bool:
    created, allocated = container.created, record.allocated_at
    if created is None or allocated is None:
        return False
    # Decision 254: the clock may have been set back in between (NTP after a boot).
    anchored = checkpoint.starts.get(f"allocated|{name}")
    return created >= allocated or (
        anchored is not None and to_boot_time(created, snapshot) >= anchored.at
    )


def _is_vacant(name: ContainerName, engine: Engine, checkpoint: Checkpoint) -> bool:
    """Whether no container that Docker lists has the name, or the booking under it."""
    identity = checkpoint.identities.get(name)
    # A container of that name, of any creator, comes before every claim.
    return name not in engine.by_name and (identity is None or identity.id not in engine.containers)


def _order_by_creation(container: Container) -> tuple[float, ContainerId]:
    # By ID where the times say nothing, so that every pass decides alike.
    return (inf if container.created is None else container.created, container.id)
