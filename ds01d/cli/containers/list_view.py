"""What `container-list` shows: DS01 containers, with what the books say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ds01d.adapters.host.callers import person
from ds01d.cli.output.blocks import Block, Cell, Document, Sentence, Table, Tone, Toned
from ds01d.cli.output.text import DisplayTime, format_count
from ds01d.containers.names import owner_of, split_name
from ds01d.model.books import AllocatorState, Record
from ds01d.model.containers import Container, State
from ds01d.model.creation import Caller
from ds01d.model.primitives import ContainerName, SlotId, Unknown, Wall
from ds01d.reconcile.ports import World

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
        one = self.container
        if one.state in _STOPPED:
            return one.finished
        return one.started if one.state.alive else one.created


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleContainers:
    """The containers that the caller may see; `more` are not shown. `trouble`: what failed."""

    rows: tuple[ContainerListRow, ...] = ()
    more: int = 0
    trouble: Mapping[str, str]


def list_containers(world: World, caller: Caller, *, every: bool) -> VisibleContainers:
    """Ask Docker and the books."""
    engine = world.engine.observe(names=None)
    if isinstance(engine, Unknown):
        return VisibleContainers(trouble={"docker": engine.reason})
    state = world.state.read()
    records = world.metadata.read()
    trouble: dict[str, str] = {}
    slots: dict[ContainerName, list[SlotId]] | None = None
    if isinstance(state, AllocatorState):
        slots = {}
        for slot in state.slots.values():
            for name in slot.containers:
                slots.setdefault(name, []).append(slot.id)
    else:
        trouble["state"] = state.reason
    if isinstance(records, Unknown):
        trouble["metadata"] = records.reason
        records = {}
    rows: list[ContainerListRow] = []
    more = 0
    for one in sorted(engine.containers.values(), key=lambda one: one.name):
        owner = owner_of(one)
        mine = owner in {caller.person.uid, caller.person.name}
        if owner is None or not (mine or caller.root):
            continue
        if not every and not one.state.alive:
            more += 1
            continue
        record = records.get(one.name)
        user = record.user if isinstance(record, Record) else None
        named = user or (person(owner).name if isinstance(owner, int) else owner)
        booked = None if slots is None else tuple(slots.get(one.name, ()))
        rows.append(ContainerListRow(container=one, user=named, slots=booked))
    return VisibleContainers(rows=tuple(rows), more=more, trouble=trouble)


def list_document(found: VisibleContainers) -> Document:
    """For --json."""
    return {
        "sources": {
            name: found.trouble.get(name, "ok") for name in ("docker", "state", "metadata")
        },
        "containers": None
        if "docker" in found.trouble
        else [_row_document(one) for one in found.rows],
    }


def list_blocks(found: VisibleContainers, *, every: bool) -> Sequence[Block]:
    """For people."""
    shown: list[Block] = [
        Sentence(f"{source} is unknown: {why}", Tone.BAD) for source, why in found.trouble.items()
    ]
    if "docker" in found.trouble:
        return shown
    if found.rows:
        columns = ("name", "user", "state", "since", "gpu", "framework")
        shown.append(Table(columns, [_row_cells(one) for one in found.rows]))
    else:
        shown.append(Sentence("no containers" if every else "no container runs"))
    if found.more:
        told = "does" if found.more == 1 else "do"
        shown.append(
            Sentence(
                f"{format_count(found.more, 'more container')} {told} not run: --all", Tone.FAINT
            )
        )
    return shown


def _row_document(one: ContainerListRow) -> Document:
    there = one.container
    return {
        "name": there.name,
        "short_name": split_name(there.name)[0],
        "id": there.id,
        "user": one.user,
        "state": there.state.value,
        "slots": None if one.slots is None else list(one.slots),
        "framework": there.labels.get("aime.mlc.FRAMEWORK"),
        "created": None if there.created is None else DisplayTime(there.created),
        "started": None if there.started is None else DisplayTime(there.started),
        "finished": None if there.finished is None else DisplayTime(there.finished),
    }


def _row_cells(one: ContainerListRow) -> list[Cell]:
    there = one.container
    gpu: Cell = Toned("unknown", Tone.WARN)
    if one.slots is not None:
        gpu = ", ".join(one.slots)
    return [
        there.name,
        one.user,
        Toned(there.state.value, _TONES.get(there.state, Tone.PLAIN)),
        None if one.since is None else DisplayTime(one.since),
        gpu,
        there.labels.get("aime.mlc.FRAMEWORK"),
    ]
