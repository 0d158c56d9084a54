"""Undoes a change of the history: as a repair, history first, all or nothing, under the same locks.

Killed at any point, `recovery` finishes the undo or closes it as not made.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from ds01d.config import Config
from ds01d.decide.docker_books import derive_books
from ds01d.decide.history_outcomes import join_entries
from ds01d.decide.undo import plan_reversal
from ds01d.decide.undo_choice import Reversal, UndoContext, UndoRefused, choose_change
from ds01d.decide.undo_guard import fingerprint_container
from ds01d.errors import BooksChanged, Ds01Error
from ds01d.errors import Refused as RefusedError
from ds01d.model.books import AllocatorState, LogLine
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, NotFound
from ds01d.model.history import UNDO, ContainerFingerprint, Entry
from ds01d.model.primitives import ContainerName, Digest, Now, SlotId, Unknown
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile import history
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.observe import observe_host
from ds01d.reconcile.pass_logs import collect_error
from ds01d.reconcile.ports import World
from ds01d.reconcile.recovery import close_by_books, recover_entries
from ds01d.reconcile.transactions import ATTEMPTS
from ds01d.reconcile.undo_entry import (
    build_entry,
    complete_checkpoint,
    find_user_and_priority,
    guard_undone,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoResult:
    """The undo, its history entry ("" in a dry run), or why it was refused."""

    reversal: Reversal | None = None
    refused: UndoRefused | None = None
    entry: str = ""
    warnings: tuple[str, ...] = ()


class Undoer:
    """Undoes changes in one world."""

    def __init__(self, world: World, config: Config) -> None:
        self._world = world
        self._config = config
        self._checkpoints = CheckpointStore(world.state_dir)

    def plan(self, entry: str, by: str) -> UndoResult:
        """What `undo` would do now. Writes nothing and takes no lock."""
        checkpoint, warning = self._checkpoints.load()
        outcome = self._plan_reversal(entry, by, checkpoint)
        # A broken checkpoint refuses no plan: what an undo is compared with is in the history and
        # in the books.
        warnings = (warning,) if warning else ()
        if isinstance(outcome, UndoRefused):
            return UndoResult(refused=outcome, warnings=warnings)
        return UndoResult(reversal=outcome[0], warnings=warnings)

    def undo(self, entry: str, by: str) -> UndoResult:
        """Undo the change that `entry` is part of; `by`: the user who asks.

        Raises `LockTimeout`, or another `Ds01Error` if nothing could be written.
        """
        if self._config.daemon.mode == "observe":
            raise RefusedError('cannot undo: daemon.mode is "observe", nothing is written')
        with self._world.state_dir.lock():
            checkpoint, lost = self._checkpoints.load()
            if lost:
                self._world.state_dir.set_checkpoint_aside()
            # Decision 36: an undo that was killed half-way is finished first; it may be the very
            # change that is asked about.
            recovered = recover_entries(self._world, checkpoint, self._checkpoints.save)
            done = self._undo(entry, by, recovered.checkpoint)
            warnings = (lost, *recovered.warnings, *done.warnings)
            return replace(done, warnings=tuple(warning for warning in warnings if warning))

    def _undo(self, entry: str, by: str, checkpoint: Checkpoint) -> UndoResult:
        """Decide, then write under the books' lock; again if the books changed in between."""
        # Inspecting may take seconds, in which allocations must not wait for the lock.
        changed: Ds01Error = BooksChanged(
            f"another writer changed the books in each of {ATTEMPTS} attempts"
        )
        for _ in range(ATTEMPTS):
            outcome = self._plan_reversal(entry, by, checkpoint)
            if isinstance(outcome, UndoRefused):
                return UndoResult(refused=outcome)
            reversal, snapshot = outcome
            # Invariant 3, here too: what is taken may be of a container that has started again
            # since the snapshot.
            change = self._inspect_again(reversal)
            if change is not None:
                raise RefusedError(change)
            try:
                with self._world.state.lock():
                    return self._write_reversal(reversal, snapshot, checkpoint, by)
            except BooksChanged as error:
                changed = error
        raise changed

    def _plan_reversal(
        self, entry: str, by: str, checkpoint: Checkpoint
    ) -> tuple[Reversal, Snapshot] | UndoRefused:
        world = self._world
        change = choose_change(
            entry, join_entries(history.read_entries(world.state_dir.read_history()))
        )
        if isinstance(change, UndoRefused):
            return change
        # A sweep, not a pass over its names: a slot that comes back may be another container's by
        # now.
        snapshot = observe_host(world, checkpoint, self._config, None)
        snapshot = derive_books(snapshot, checkpoint, self._config)
        names = frozenset().union(*(item.entry.names for item in change))
        texts = {name: world.metadata.read_text(name) for name in sorted(names)}
        slots = {
            SlotId(slot) for item in change for side in item.entry.sides for slot in side.slots
        }
        context = UndoContext(
            snapshot=snapshot,
            checkpoint=checkpoint,
            texts=texts,
            slots=world.state.slot_texts(sorted(slots)),
            parse_slot=world.state.parse_slot,
        )
        outcome = plan_reversal(change, context, by)
        return outcome if isinstance(outcome, UndoRefused) else (outcome, snapshot)

    def _inspect_again(self, reversal: Reversal) -> str | None:
        """Why a container is not as decided any more, by a new inspect; None if all are."""
        for name, was in reversal.containers.items():
            answer = self._world.engine.look_up(name, None)
            if isinstance(answer, Unknown):
                return f'cannot check container "{name}": {answer.reason}'
            if not _is_unchanged(name, was, answer):
                return f'container "{name}" changed meanwhile; try again'
        return None

    def _write_reversal(
        self, reversal: Reversal, snapshot: Snapshot, checkpoint: Checkpoint, by: str
    ) -> UndoResult:
        """Write the history, the undo guard, the state, then the metadata."""
        # The guard first: the next pass would otherwise repair again what is undone here.
        world = self._world
        entry = build_entry(self._unused_id(snapshot.now), reversal, snapshot, by, world.actor)
        history.append_entries(world, [entry])
        checkpoint = guard_undone(checkpoint, reversal, entry)
        try:
            self._checkpoints.save(checkpoint)
            _write_state(reversal, world)
        except Ds01Error as error:
            recovered = close_by_books(
                world, [entry], checkpoint, self._checkpoints.save, why=str(error)
            )
            # The write that decides may have been made although it failed afterwards (an fsync);
            # recovery shows it, and then the undo stands, with its problems.
            if entry.id not in recovered.checkpoint.undone or isinstance(error, BooksChanged):
                raise
            problems = (str(error), *recovered.warnings)
            return UndoResult(reversal=reversal, entry=entry.id, warnings=problems)
        warnings = _write_records(reversal, world)
        with suppress(Ds01Error):  # the next pass keeps it as well
            world.state.save_last_good()
        if not warnings:
            warnings = self._close_entry(entry, checkpoint, reversal)
        warnings += _log_undo(reversal, snapshot, entry, by, world)
        return UndoResult(reversal=reversal, entry=entry.id, warnings=tuple(warnings))

    def _unused_id(self, now: Now) -> str:
        """An ID that no entry has, also after the clock was set back."""
        taken = {entry.id for entry in history.read_entries(self._world.state_dir.read_history())}
        # Not the number within a pass: an undo made in the same millisecond as a pass would get its
        # ID.
        return next(i for n in count() if (i := history.make_entry_id(now, f"u{n}")) not in taken)

    def _close_entry(self, entry: Entry, checkpoint: Checkpoint, reversal: Reversal) -> list[str]:
        """Save the checkpoint and close the entry; a failure is left to `recovery`."""
        try:
            metadata = self._world.metadata.read()
            self._checkpoints.save(complete_checkpoint(checkpoint, reversal, entry.id, metadata))
            history.close_entries(self._world, {entry.id: None})
        except Ds01Error as error:
            return [str(error)]
        return []


def _is_unchanged(
    name: ContainerName, before: ContainerFingerprint, answer: Container | NotFound
) -> bool:
    if isinstance(answer, NotFound) or answer.name != name:
        return not before.state
    return fingerprint_container(answer) == before


def _write_state(reversal: Reversal, world: World) -> None:
    if reversal.broken:
        world.state.restore_broken(Digest(reversal.broken), onto=reversal.onto)
    elif reversal.state is not None:
        after = reversal.state.without_derived()
        world.state.write(after, onto=reversal.onto, texts=reversal.texts)
    # A change of metadata alone: the state must still be the one that it was decided on.
    elif reversal.onto:
        state = world.state.read()
        if not isinstance(state, AllocatorState) or state.digest != reversal.onto:
            raise BooksChanged("the state file changed meanwhile")


def _write_records(reversal: Reversal, world: World) -> list[str]:
    warnings: dict[str, None] = {}
    for name, (text, onto) in reversal.records.items():
        collect_error(partial(world.metadata.restore_text, name, text, onto=onto), warnings)
    return list(warnings)


def _log_undo(
    reversal: Reversal, snapshot: Snapshot, entry: Entry, by: str, world: World
) -> list[str]:
    """Append a line for each booking to the allocations log, and one to the operations log."""
    warnings: dict[str, None] = {}
    reason = f"ds01ctl: undo {', '.join(entry.undoes)} ({entry.kind}), by {by}"
    for event, bookings in (("RELEASED", reversal.taken), ("ALLOCATED", reversal.given)):
        for name, slot in sorted(bookings):
            # By the snapshot, from before the write: what is released has no record any more.
            user, priority = find_user_and_priority(name, snapshot)
            booked = partial(world.allocations.append, at=snapshot.now.wall, event=event, user=user)
            about = partial(booked, container=name, gpu=slot, priority=priority, reason=reason)
            collect_error(about, warnings)
    line = LogLine(
        at=snapshot.now.wall,
        operation=UNDO,
        user=by,
        container=entry.container or "N/A",
        gpu=entry.slot or "N/A",
        status="done",
        details=reason,
        actor=world.actor,
    )
    collect_error(partial(world.operations.append, line), warnings)
    return list(warnings)
