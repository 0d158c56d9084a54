"""What `container-list` shows: DS01 containers with their bookings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ds01d.adapters.host.callers import look_up_person
from ds01d.cli.output.blocks import Block, Cell, Document, Sentence, Table, Tone, Toned
from ds01d.cli.output.text import DisplayTime
from ds01d.containers.names import owner_of, split_name
from ds01d.model.books import AllocatorState, Record
from ds01d.model.containers import Container, State
from ds01d.model.creation import Caller
from ds01d.model.primitives import ContainerName, SlotId, Unknown, Wall
from ds01d.reconcile.ports import World
from ds01d.text import format_count

_TONES = {State.RUNNING: Tone.GOOD, State.DEAD: Tone.BAD, State.REMOVING: Tone.WARN}
_STOPPED = (State.EXITED, State.DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerListRow:
    """One container. `slots` None: the books cannot be read."""

    container: Container
    user: str
    slots: tuple[SlotId, ...] | None

    @property
    def since(self) -> Wall | None:
        """Since when it is in its state."""
        container = self.container
        if container.state in _STOPPED:
            return container.finished
        return container.started if container.state.alive else container.created


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleContainers:
    """The containers that the caller may see; `more` are not shown. `failures`: why, by source."""

    rows: tuple[ContainerListRow, ...] = ()
    more: int = 0
    failures: Mapping[str, str]


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
        rows.append(ContainerListRow(container=container, user=shown_user, slots=booked))
    return VisibleContainers(rows=tuple(rows), more=stopped, failures=failures)


def list_document(containers: VisibleContainers) -> Document:
    """For --json."""
    return {
        "sources": {
            name: containers.failures.get(name, "ok") for name in ("docker", "state", "metadata")
        },
        "containers": None
        if "docker" in containers.failures
        else [_row_document(row) for row in containers.rows],
    }


def list_blocks(containers: VisibleContainers, *, with_stopped: bool) -> Sequence[Block]:
    """For people."""
    blocks: list[Block] = [
        Sentence(f"{source} failed: {why}", Tone.BAD) for source, why in containers.failures.items()
    ]
    if "docker" in containers.failures:
        return blocks
    if containers.rows:
        columns = ("name", "user", "state", "since", "gpu", "framework")
        blocks.append(Table(columns, [_row_cells(row) for row in containers.rows]))
    else:
        blocks.append(Sentence("no containers" if with_stopped else "no running containers"))
    if containers.more:
        verb = "does" if containers.more == 1 else "do"
        blocks.append(
            Sentence(
                f"{format_count(containers.more, 'more container')} {verb} not run: --all",
                Tone.FAINT,
            )
        )
    return blocks


def _row_document(row: ContainerListRow) -> Document:
    container = row.container
    return {
        "name": container.name,
        "short_name": split_name(container.name)[0],
        "id": container.id,
        "user": row.user,
        "state": container.state.value,
        "slots": None if row.slots is None else list(row.slots),
        "framework": container.labels.get("aime.mlc.FRAMEWORK"),
        "created": None if container.created is None else DisplayTime(container.created),
        "started": None if container.started is None else DisplayTime(container.started),
        "finished": None if container.finished is None else DisplayTime(container.finished),
    }


def _row_cells(row: ContainerListRow) -> list[Cell]:
    container = row.container
    gpu: Cell = Toned("unknown", Tone.WARN)
    if row.slots is not None:
        gpu = ", ".join(row.slots)
    return [
        container.name,
        row.user,
        Toned(container.state.value, _TONES.get(container.state, Tone.PLAIN)),
        None if row.since is None else DisplayTime(row.since),
        gpu,
        container.labels.get("aime.mlc.FRAMEWORK"),
    ]
