"""After a crash: entries of the history that were left open are closed by what the books say.

A repair that was made in part is left to the pass, which finds the rest as drift. Taking back is
not: nothing else would finish it, so it is finished here, where the books are still as it left
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ds01d.decide.chronicle import deeds
from ds01d.errors import Ds01Error
from ds01d.model.facts import ContainerName, Digest, SlotId
from ds01d.model.history import Entry, Side, is_as
from ds01d.model.memory import Memory
from ds01d.model.records import AllocatorState, Unreadable
from ds01d.reconcile import history
from ds01d.reconcile.ports import World

_KILLED = "its process ended before it was made"
_UNKNOWN = "its process ended, and the books changed before anybody looked"


def recover(world: World, memory: Memory) -> tuple[Memory, list[str]]:
    """Close what was left open; gives the memory without what was not done, and the troubles.

    Under the lock of `state_dir`. Costs nothing where nobody else wrote into the history.
    """
    lines = world.own.new_history()
    left = [one.entry for one in deeds(history.read(lines)) if not one.closed]
    if not left:
        world.own.history_read()
        return memory, []
    memory, troubles = closed(world, left, memory, why=_KILLED)
    if not troubles:
        world.own.history_read()
    return memory, troubles


def closed(
    world: World, left: Sequence[Entry], memory: Memory, *, why: str
) -> tuple[Memory, list[str]]:
    """Close entries by what the books say; `why` the others were not made. As `recover`.

    What cannot be told or finished now stays open, for whoever comes next.
    """
    state = world.state.read()
    if not isinstance(state, AllocatorState | Unreadable):
        return memory, [f"what a process that ended left open stays so: {state.reason}"]
    outcomes: dict[str, str | None] = {}
    troubles: list[str] = []
    for entry in left:
        outcome = _outcome(entry, state, world, why)
        unfinished = _finish(entry, world) if entry.undoes and outcome is None else []
        troubles += unfinished
        if not unfinished:
            outcomes[entry.id] = outcome
    try:
        history.close(world, outcomes)
    except Ds01Error as error:
        troubles.append(str(error))
    lost = {entry for entry, failed in outcomes.items() if failed is not None}
    undone = {
        entry: replace(one, records=dict.fromkeys(one.records, Digest("")))
        if entry in outcomes  # finished just now: the next look notes what it is to stay like
        else one
        for entry, one in memory.undone.items()
        if entry not in lost
    }
    return replace(memory, undone=undone), troubles


def _outcome(
    entry: Entry, state: AllocatorState | Unreadable, world: World, why: str
) -> str | None:
    """None if it was made, else why it counts as not made. The state's write is what counts."""
    before, after = entry.before or Side(), entry.after or Side()
    if before.broken or after.broken:
        digest = state.digest if isinstance(state, Unreadable) else ""
        return None if digest == after.broken else why
    if isinstance(state, Unreadable):
        return _UNKNOWN
    changed = {n for n, was in after.slots.items() if before.slots.get(n) != was}
    if changed:
        slots = {name: state.slots.get(SlotId(name)) for name in changed}
        if all(is_as(slot, after.slots.get(name)) for name, slot in slots.items()):
            return None
        if all(is_as(slot, before.slots.get(name)) for name, slot in slots.items()):
            return why
        there = {(name, slot.id) for slot in state.slots.values() for name in slot.containers}
        moved = entry.taken or entry.given
        made = not (set(entry.taken) - set(entry.given)) & there and set(entry.given) <= there
        return None if moved and made else _UNKNOWN
    texts = {name: world.metadata.text(ContainerName(name)) for name in after.metadata}
    if texts == dict(after.metadata):
        return None
    return why if texts == dict(before.metadata) else _UNKNOWN


def _finish(entry: Entry, world: World) -> list[str]:
    """Write the metadata of a taking back, where it is still as that found it."""
    troubles = []
    before: Mapping[str, str | None] = entry.before.metadata if entry.before else {}
    records = world.metadata.read()
    for text, after in (entry.after.metadata if entry.after else {}).items():
        name = ContainerName(text)
        there = records.get(name) if isinstance(records, Mapping) else None
        if world.metadata.text(name) == before.get(text) != after:
            try:
                onto = there.digest if there is not None else None
                world.metadata.restore(name, after, onto=onto)
            except Ds01Error as error:
                troubles.append(str(error))
    return troubles
