"""Which container a name belongs to, from one pass to the next. Pure."""

from __future__ import annotations

from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint, Identity
from ds01d.model.containers import Container, Engine
from ds01d.model.primitives import Boot, ContainerName, SlotId, Unknown
from ds01d.model.snapshot import Snapshot


def is_creation_step(
    container: Container, identity: Identity | None, noted_at: Boot | None
) -> bool:
    """Whether an unlabelled container has just come or ended: a step of a creation, perhaps.

    One that merely stays is none, or it would be "being created" for as long as it exists.
    `noted_at`: when one was last noted under that name.
    """
    if noted_at is None or identity is None or identity.id != container.id:
        return True
    return (
        not container.state.alive and identity.alive_at is not None and identity.alive_at > noted_at
    )


def is_running_elsewhere(
    name: ContainerName,
    identity: Identity | None,
    container: Container,
    engine: Engine,
    snapshot: Snapshot,
) -> bool:
    """A booked name was taken by a new container while its own lives on under another one.

    Until that one is booked in all that is booked under the old name.
    """
    if identity is None or identity.id == container.id or identity.id not in engine.containers:
        return False
    # While the state cannot be read nobody knows what is booked under the old name: the identity
    # stays.
    if not isinstance(snapshot.state, AllocatorState):
        return isinstance(snapshot.state, Unknown)
    current_name = engine.containers[identity.id].name
    booked = _booked_slots(name, snapshot.state)
    # Once its own is booked under the new name, nothing of it is left under this one.
    return bool(booked) and not booked <= _booked_slots(current_name, snapshot.state)


def _booked_slots(name: ContainerName, state: AllocatorState) -> frozenset[SlotId]:
    added = (slot for booked_name, slot in state.merge if booked_name == name)
    # Decision 375: what follows from requests is under the present name already.
    stored = (slot for slot in state.find_slots(name) if (name, slot) not in state.derived)
    return frozenset((*stored, *added))


_MOST_FORMER = 4  # of a name; who replaces a container daily has no end of them


def update_identity(
    container: Container,
    previous: Identity | None,
    engine: Engine,
    checkpoint: Checkpoint,
    now: Boot,
) -> Identity:
    former = previous.former if previous is not None else ()
    if previous is None or previous.id != container.id:
        # Decision 153: it may be gone for Docker and live for the kernel, on the slot that is
        # booked here.
        if previous is not None and previous.id not in engine.containers:
            former = (previous.id, *former)[:_MOST_FORMER]
        # Decision 67: what is known of a container goes with its ID when it is renamed.
        previous = next((i for i in checkpoint.identities.values() if i.id == container.id), None)
    if previous is not None and not container.state.alive:
        facts = (container.labelled, container.created)
        if facts == (previous.labelled, previous.created):  # as nearly all in each sweep
            return previous
    return Identity(
        id=container.id,
        labelled=container.labelled,
        created=container.created,
        alive_at=now
        if container.state.alive
        else previous.alive_at
        if previous is not None
        else None,
        # Decision 9: it was not there in the last sweep, so it cannot have stopped before it,
        # whatever FinishedAt is.
        unborn_at=checkpoint.swept_at if previous is None else previous.unborn_at,
        former=former,
    )
