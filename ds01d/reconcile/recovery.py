"""After a crash: entries of the history that were left open are closed by what the books say.

A repair that was made in part is left to the pass, which finds the rest as drift. Taking back is
not, nor is what follows a rename: nothing else would finish those, so they are finished here, where
the books are still as they left them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ds01d.decide.history_outcomes import change_of, join_entries
from ds01d.decide.renames import follow_renames
from ds01d.errors import Ds01Error
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.history import BooksState, Entry, matches_record
from ds01d.model.primitives import ContainerId, ContainerName, Digest, SlotId
from ds01d.reconcile import history
from ds01d.reconcile.ports import World

_NOT_MADE = "the process ended before it made the change"
_BOOKS_CHANGED = "the process ended, and the books were changed before recovery"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryResult:
    """The memory without what was not done, and what went wrong.

    `unfinished`: names whose books are still half as before and half as after a rename; nothing
    else may be done to those.
    """

    checkpoint: Checkpoint
    warnings: tuple[str, ...] = ()
    unfinished: frozenset[ContainerName] = frozenset()


def recover_entries(
    world: World, memory: Checkpoint, save: Callable[[Checkpoint], None], *, left_open: bool = False
) -> RecoveryResult:
    """Close what was left open.

    Under the lock of `state_dir`. Costs nothing where nobody else wrote into the history, unless
    this process knows that it left something open itself.
    """
    lines = world.state_dir.read_history() if left_open else world.state_dir.read_new_history()
    left = [deed.entry for deed in join_entries(history.read_entries(lines)) if not deed.closed]
    if not left:
        world.state_dir.mark_history_read()
        return RecoveryResult(checkpoint=memory)
    recovered = close_by_books(world, left, memory, save, why=_NOT_MADE)
    if not recovered.warnings:
        world.state_dir.mark_history_read()
    return recovered


def close_by_books(
    world: World,
    open_entries: Sequence[Entry],
    memory: Checkpoint,
    save: Callable[[Checkpoint], None],
    *,
    why: str,
) -> RecoveryResult:
    """Close entries by what the books say; `why` the others were not made. As `recover_entries`.

    What cannot be told or finished now stays open, for whoever comes next. `save` is called before
    anything is closed: a rename that was followed must not be forgotten.
    """
    state = world.state.read()
    if not isinstance(state, AllocatorState | Unreadable):
        trouble = f"cannot finish what a killed process left open: {state.reason}"
        names = frozenset(name for entry in open_entries for name in entry.homes)
        return RecoveryResult(checkpoint=memory, warnings=(trouble,), unfinished=names)
    outcomes: dict[str, str | None] = {}
    troubles: list[str] = []
    unfinished: set[ContainerName] = set()
    homes: dict[str, dict[ContainerName, str]] = {}
    for entry in open_entries:
        outcome = _judge_entry(entry, state, world, why)
        made = outcome is None
        failures = _finish_metadata(entry, world) if made and (entry.undoes or entry.homes) else []
        if made and entry.homes:
            homes.setdefault(change_of(entry), {}).update(entry.homes)
        if failures:
            troubles += failures
            unfinished.update(entry.homes)
        else:
            outcomes[entry.id] = outcome
    for bearers in homes.values():  # names that were swapped, all at once
        ids = {name: ContainerId(bearer) or None for name, bearer in bearers.items()}
        memory = follow_renames(memory, ids)
    lost = {entry for entry, failed in outcomes.items() if failed is not None}
    undone = {
        entry: replace(hold, records=dict.fromkeys(hold.records, Digest("")))
        if entry in outcomes  # finished just now: the next look notes what it is to stay like
        else hold
        for entry, hold in memory.undone.items()
        if entry not in lost
    }
    memory = replace(memory, undone=undone)
    try:
        save(memory)
        history.close_entries(world, outcomes)
    except Ds01Error as error:
        troubles.append(str(error))
    return RecoveryResult(
        checkpoint=memory, warnings=tuple(troubles), unfinished=frozenset(unfinished)
    )


def _judge_entry(
    entry: Entry, state: AllocatorState | Unreadable, world: World, why: str
) -> str | None:
    """None if it was made, else why it counts as not made. The state's write is what counts."""
    before, after = entry.before or BooksState(), entry.after or BooksState()
    if before.broken or after.broken:
        digest = state.digest if isinstance(state, Unreadable) else ""
        return None if digest == after.broken else why
    if isinstance(state, Unreadable):
        return _BOOKS_CHANGED
    changed = {i for i, slot in after.slots.items() if before.slots.get(i) != slot}
    if changed:
        slots = {name: state.slots.get(SlotId(name)) for name in changed}
        if all(matches_record(slot, after.slots.get(name)) for name, slot in slots.items()):
            return None
        if all(matches_record(slot, before.slots.get(name)) for name, slot in slots.items()):
            return why
        bookings = {(name, slot.id) for slot in state.slots.values() for name in slot.containers}
        moved = entry.taken or entry.given
        made = not (set(entry.taken) - set(entry.given)) & bookings and set(entry.given) <= bookings
        return None if moved and made else _BOOKS_CHANGED
    texts = {name: world.metadata.read_text(ContainerName(name)) for name in after.metadata}
    if texts == dict(after.metadata):
        return None
    if texts == dict(before.metadata):
        return why
    changed_names = {
        name for name, text in after.metadata.items() if before.metadata.get(name) != text
    }
    begun = any(texts[name] == after.metadata[name] for name in changed_names)
    return None if entry.homes and begun else _BOOKS_CHANGED


def _finish_metadata(entry: Entry, world: World) -> list[str]:
    """Write the metadata that belongs to it, where it is still as it was found."""
    troubles = []
    before: Mapping[str, str | None] = entry.before.metadata if entry.before else {}
    records = world.metadata.read()
    for text, after in (entry.after.metadata if entry.after else {}).items():
        name = ContainerName(text)
        record = records.get(name) if isinstance(records, Mapping) else None
        if world.metadata.read_text(name) == before.get(text) != after:
            try:
                onto = record.digest if record is not None else None
                world.metadata.restore_text(name, after, onto=onto)
            except Ds01Error as error:
                troubles.append(str(error))
    return troubles
