"""Recovery after a crash: closes the history entries that a killed process left open.

A repair that was made in part is left to the next pass, which finds the rest as drift. An undo and
what follows a rename are finished here (decisions 36 and 68): no drift shows what is left of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ds01d.decide.history_outcomes import change_of, join_entries
from ds01d.decide.renames import follow_renames
from ds01d.errors import Ds01Error
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.history import BooksState, Entry, matches_record
from ds01d.model.primitives import ContainerId, ContainerName, Digest, SlotId, Word
from ds01d.reconcile import history
from ds01d.reconcile.ports import World

_NOT_MADE = "the process ended before it made the change"
_BOOKS_CHANGED = "the process ended, and the books were changed before recovery"


class _Progress(Word):
    """How far the change of an open entry came."""

    MADE = "made"  # at least its decisive write
    NOT_MADE = "not made"  # the books are as before it
    UNKNOWN = "unknown"  # the books are neither as before nor as after


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryResult:
    """The checkpoint without the changes that were not made, and what failed.

    `unfinished`: names whose books are half as before and half as after a rename; no pass may
    change anything else of them.
    """

    checkpoint: Checkpoint
    warnings: tuple[str, ...] = ()
    unfinished: frozenset[ContainerName] = frozenset()


def recover_entries(
    world: World,
    checkpoint: Checkpoint,
    save: Callable[[Checkpoint], None],
    *,
    left_open: bool = False,
) -> RecoveryResult:
    """Close the open entries; under the lock of `state_dir`.

    `left_open`: this process left some open itself, so the whole history is read. Otherwise only
    what others appended since the last call, mostly nothing.
    """
    # Most passes follow one of the same process, which left nothing open: reading the whole history
    # each time would cost more than the pass.
    lines = world.state_dir.read_history() if left_open else world.state_dir.read_new_history()
    joined = join_entries(history.read_entries(lines))
    open_entries = [change.entry for change in joined if not change.closed]
    if not open_entries:
        world.state_dir.mark_history_read()
        return RecoveryResult(checkpoint=checkpoint)
    recovered = close_by_books(world, open_entries, checkpoint, save, why=_NOT_MADE)
    if not recovered.warnings:
        world.state_dir.mark_history_read()
    return recovered


def close_by_books(
    world: World,
    open_entries: Sequence[Entry],
    checkpoint: Checkpoint,
    save: Callable[[Checkpoint], None],
    *,
    why: str,
) -> RecoveryResult:
    """Close entries by what the books contain. `why`: the reason of those that were not made.

    An entry that cannot be judged or finished now stays open for the next recovery.
    """
    state = world.state.read()
    if not isinstance(state, AllocatorState | Unreadable):
        # While the state cannot be read nobody knows how far a rename came, so its names are left
        # alone.
        warning = f"cannot finish what a killed process left open: {state.reason}"
        names = frozenset(name for entry in open_entries for name in entry.homes)
        return RecoveryResult(checkpoint=checkpoint, warnings=(warning,), unfinished=names)
    reasons = {_Progress.MADE: None, _Progress.NOT_MADE: why, _Progress.UNKNOWN: _BOOKS_CHANGED}
    outcomes: dict[str, str | None] = {}
    warnings: list[str] = []
    unfinished: set[ContainerName] = set()
    renames: dict[str, dict[ContainerName, str]] = {}
    for entry in open_entries:
        progress = _find_progress(entry, state, world)
        failures: list[str] = []
        # Decision 36: the rest of a repair is found as drift by the next pass; nothing else would
        # finish these two.
        if progress is _Progress.MADE and (entry.undoes or entry.homes):
            failures = _finish_metadata(entry, world)
        if progress is _Progress.MADE and entry.homes:
            renames.setdefault(change_of(entry), {}).update(entry.homes)
        if failures:
            warnings += failures
            unfinished.update(entry.homes)
        else:
            outcomes[entry.id] = reasons[progress]
    checkpoint = _update_guards(_follow(checkpoint, renames.values()), outcomes)
    try:
        # Decision 68: the checkpoint first. A rename whose entry is closed, but that the checkpoint
        # does not have, would be seen as drift of two containers.
        save(checkpoint)
        history.close_entries(world, outcomes)
    except Ds01Error as error:
        warnings.append(str(error))
    return RecoveryResult(
        checkpoint=checkpoint, warnings=tuple(warnings), unfinished=frozenset(unfinished)
    )


def _follow(checkpoint: Checkpoint, renames: Iterable[Mapping[ContainerName, str]]) -> Checkpoint:
    """The checkpoint with the IDs of renamed containers; names that were swapped all at once."""
    for ids in renames:
        checkpoint = follow_renames(
            checkpoint, {name: ContainerId(i) or None for name, i in ids.items()}
        )
    return checkpoint


def _update_guards(checkpoint: Checkpoint, outcomes: Mapping[str, str | None]) -> Checkpoint:
    """The checkpoint with the undo guards of the entries that `outcomes` closes."""
    guards = {}
    for entry, guard in checkpoint.undone.items():
        if outcomes.get(entry) is not None:
            continue  # not made: nothing to guard
        if entry in outcomes:
            # Finished just now: the next pass notes the digests that the records have to keep.
            guards[entry] = replace(guard, records=dict.fromkeys(guard.records, Digest("")))
        else:
            guards[entry] = guard
    return replace(checkpoint, undone=guards)


def _find_progress(entry: Entry, state: AllocatorState | Unreadable, world: World) -> _Progress:
    """How far a change came, by the one write that decides it (decision 37).

    That write replaces an unreadable state, or changes slots, or else writes metadata.
    """
    before, after = entry.before or BooksState(), entry.after or BooksState()
    # Decision 37: the write that replaces the state is the moment of the change; the digest shows
    # whether it was made.
    if before.broken or after.broken:
        digest = state.digest if isinstance(state, Unreadable) else ""
        return _Progress.MADE if digest == after.broken else _Progress.NOT_MADE
    if isinstance(state, Unreadable):
        return _Progress.UNKNOWN
    changed = {name for name in after.slots if before.slots.get(name) != after.slots[name]}
    if changed:
        return _find_slot_progress(entry, state, changed)
    return _find_metadata_progress(entry, world)


def _find_slot_progress(entry: Entry, state: AllocatorState, changed: Collection[str]) -> _Progress:
    """How far a change of the `changed` slots came."""

    def is_as(side: BooksState | None) -> bool:
        records = side.slots if side is not None else {}
        return all(matches_record(state.slots.get(SlotId(i)), records.get(i)) for i in changed)

    if is_as(entry.after):
        return _Progress.MADE
    if is_as(entry.before):
        return _Progress.NOT_MADE
    # Somebody else has changed a slot since, but the bookings of this entry may still show it.
    bookings = state.list_bookings()
    taken, given = set(entry.taken), set(entry.given)
    shows = bool(taken | given) and given <= bookings and not (taken - given) & bookings
    return _Progress.MADE if shows else _Progress.UNKNOWN


def _find_metadata_progress(entry: Entry, world: World) -> _Progress:
    """How far a change of metadata alone came, by the texts of the files."""
    before = entry.before.metadata if entry.before is not None else {}
    after = entry.after.metadata if entry.after is not None else {}
    texts = {name: world.metadata.read_text(ContainerName(name)) for name in after}
    if texts == dict(after):
        return _Progress.MADE
    if texts == dict(before):
        return _Progress.NOT_MADE
    # Decision 68: a rename of metadata alone is redone from its texts as soon as one file is
    # written.
    is_begun = any(texts[name] == after[name] != before.get(name) for name in after)
    return _Progress.MADE if entry.homes and is_begun else _Progress.UNKNOWN


def _finish_metadata(entry: Entry, world: World) -> list[str]:
    """Write the metadata files of a change that still are as before it; gives the failures."""
    failures = []
    before: Mapping[str, str | None] = entry.before.metadata if entry.before else {}
    records = world.metadata.read()
    for text, after in (entry.after.metadata if entry.after else {}).items():
        name = ContainerName(text)
        record = records.get(name) if isinstance(records, Mapping) else None
        # Only files that are still as before: what somebody wrote meanwhile is newer than this
        # change.
        if world.metadata.read_text(name) == before.get(text) != after:
            try:
                onto = record.digest if record is not None else None
                world.metadata.restore_text(name, after, onto=onto)
            except Ds01Error as error:
                failures.append(str(error))
    return failures
