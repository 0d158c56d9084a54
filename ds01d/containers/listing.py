"""The containers that a caller may see, with their bookings. Asks Docker and the books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.adapters.host.callers import look_up_person
from ds01d.containers.names import owner_of
from ds01d.model.books import AllocatorState, Record
from ds01d.model.containers import State
from ds01d.model.creation import Caller
from ds01d.model.primitives import ContainerId, ContainerName, SlotId, Unknown, Wall
from ds01d.reconcile.ports import World

_STOPPED = (State.EXITED, State.DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerListRow:
    """One container. `slots` None: the books cannot be read."""

    name: ContainerName
    id: ContainerId
    user: str
    state: State
    slots: tuple[SlotId, ...] | None
    framework: str | None
    created: Wall | None
    started: Wall | None
    finished: Wall | None

    @property
    def since(self) -> Wall | None:
        """Since when it is in its state."""
        if self.state in _STOPPED:
            return self.finished
        return self.started if self.state.alive else self.created


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleContainers:
    """The containers that the caller may see; `more` are not shown. `failures`: why, by source."""

    rows: tuple[ContainerListRow, ...] = ()
    more: int = 0
    failures: Mapping[str, str]


def list_names(world: World) -> tuple[ContainerName, ...]:
    """The names of all containers; none where Docker does not answer."""
    engine = world.engine.observe(names=None)
    return () if isinstance(engine, Unknown) else tuple(engine.by_name)


def list_containers(world: World, caller: Caller, *, with_stopped: bool) -> VisibleContainers:
    """Ask Docker and the books."""
    engine = world.engine.observe(names=None)
    if isinstance(engine, Unknown):
        return VisibleContainers(failures={"docker": engine.reason})
    state = world.state.read()
    records = world.metadata.read()
    failures: dict[str, str] = {}
    slots: dict[ContainerName, list[SlotId]] | None = None
    if isinstance(state, AllocatorState):
        slots = {}
        for slot in state.slots.values():
            for name in slot.containers:
                slots.setdefault(name, []).append(slot.id)
    else:
        failures["state"] = state.reason
    if isinstance(records, Unknown):
        failures["metadata"] = records.reason
        records = {}
    rows: list[ContainerListRow] = []
    stopped = 0
    for container in sorted(engine.containers.values(), key=lambda container: container.name):
        owner = owner_of(container)
        is_own = owner in {caller.person.uid, caller.person.name}
        # decision 71: the owner is the uid in the name, else the user in the labels.
        if owner is None or not (is_own or caller.root):
            continue
        if not with_stopped and not container.state.alive:
            # Counted, so that nobody takes the list for all there is.
            stopped += 1
            continue
        record = records.get(container.name)
        # The books first: they have the user under whom the slot counts.
        user = record.user if isinstance(record, Record) else None
        shown_user = user or (look_up_person(owner).name if isinstance(owner, int) else owner)
        booked = None if slots is None else tuple(slots.get(container.name, ()))
        rows.append(
            ContainerListRow(
                name=container.name,
                id=container.id,
                user=shown_user,
                state=container.state,
                slots=booked,
                framework=container.labels.get("aime.mlc.FRAMEWORK"),
                created=container.created,
                started=container.started,
                finished=container.finished,
            )
        )
    return VisibleContainers(rows=tuple(rows), more=stopped, failures=failures)
