"""Freezes and thaws: stop repairs by the daemon and by reconcile, and allow them again.

Freezes and the trusted engine are part of the checkpoint, so they change as in a pass: under the
lock of `state_dir`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from ds01d.decide.checkpoint_clock import list_freezes_in_force
from ds01d.decide.engine_identity import describe_engine
from ds01d.decide.freezes import (
    EVERYTHING,
    anchor_freeze,
    describe_freeze,
    name_subject,
)
from ds01d.decide.short_names import find_by_name
from ds01d.errors import Refused, WriteFailed
from ds01d.model.books import AllocatorState, LogLine
from ds01d.model.checkpoint import Checkpoint, Freeze, Undone
from ds01d.model.containers import Engine
from ds01d.model.primitives import ContainerName, Unknown, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.ports import World
from ds01d.text import describe_moment

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeResult:
    """A freeze that was set; `warnings`: what failed beside it."""

    freeze: Freeze
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ThawResult:
    """What may be repaired again, a line each; `warnings`: what failed beside it."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Change(Generic[_Answer]):
    """A checkpoint as it shall be, the answer to the caller, and what gets into the log."""

    checkpoint: Checkpoint
    answer: _Answer
    subject: str
    details: str


class Freezer:
    """Changes the freezes of one world in the name of `by`.

    Each method raises `Refused` where there is nothing to change, `LockTimeout` or `WriteFailed`.
    """

    def __init__(self, world: World, by: str) -> None:
        self._world, self._by = world, by
        self._warnings: list[str] = []

    def freeze(self, subject: str | None, seconds: float | None, reason: str) -> FreezeResult:
        """Stop repairs of a container or a slot; None: of everything."""

        def add_freeze(checkpoint: Checkpoint) -> _Change[Freeze]:
            now = self._world.clock.now()
            target = EVERYTHING if subject is None else self._check_subject(subject)
            until = None if seconds is None else Wall(now.wall + seconds)
            new = Freeze(subject=target, by=self._by, reason=reason, since=now.wall, until=until)
            new = anchor_freeze(new, now)
            freezes = {**checkpoint.freezes, target: new}
            details = describe_freeze(new, now.wall)
            return _Change(replace(checkpoint, freezes=freezes), new, target, details)

        freeze = self._change_checkpoint(add_freeze, "freeze")
        return FreezeResult(freeze=freeze, warnings=tuple(self._warnings))

    def thaw(self, subject: str | None) -> ThawResult:
        """End the freeze of a container or a slot, or what an undo blocks; None: of everything."""

        def remove_freeze(checkpoint: Checkpoint) -> _Change[tuple[str, ...]]:
            now = self._world.clock.now()
            freezes = {freeze.subject: freeze for freeze in list_freezes_in_force(checkpoint, now)}
            target = EVERYTHING
            if subject is not None:
                blocked = (name for undo in checkpoint.undone.values() for name in undo.containers)
                target = self._find_subject(subject, {*freezes, *checkpoint.undone, *blocked})
            undone = {
                entry: undone
                for entry, undone in checkpoint.undone.items()
                if _is_about(target, entry, undone)
            }
            if target not in freezes and not undone:
                raise Refused(_describe_not_frozen(target, freezes, checkpoint.undone))
            lines = [_describe_ended(freezes[target], now.wall)] if target in freezes else []
            lines += [f"what {entry} took back may be repaired again" for entry in undone]
            changed = replace(
                checkpoint,
                freezes={s: f for s, f in freezes.items() if s != target},
                undone={e: u for e, u in checkpoint.undone.items() if e not in undone},
            )
            return _Change(changed, tuple(lines), target, "; ".join(lines))

        lines = self._change_checkpoint(remove_freeze, "thaw")
        return ThawResult(lines=lines, warnings=tuple(self._warnings))

    def trust_engine(self) -> ThawResult:
        """Trust the Docker engine that the last pass found, instead of the previous one."""
        line = self._change_checkpoint(_trust_engine, "thaw")
        return ThawResult(lines=(line,), warnings=tuple(self._warnings))

    def _change_checkpoint(
        self,
        change: Callable[[Checkpoint], _Change[_Answer]],
        operation: str,
    ) -> _Answer:
        """Change the checkpoint as a pass does, and log it."""
        with self._world.state_dir.lock():
            store = CheckpointStore(self._world.state_dir)
            checkpoint, problem = store.load()
            changed = change(checkpoint)
            if problem:
                self._warnings.append(problem)
                # Only now: a refused change must not move the checkpoint.
                store.set_aside()
            store.save(changed.checkpoint)
            self._log_change(operation, changed.subject, changed.details)
        return changed.answer

    def _log_change(self, operation: str, subject: str, details: str) -> None:
        """Append to the operations log; a failure is only a warning."""
        actor = self._world.actor
        line = LogLine(
            at=self._world.clock.now().wall,
            operation=operation,
            user="system" if actor is None else actor.login,
            container=subject,
            gpu="N/A",
            status="done",
            details=f"ds01ctl: {details}",
            actor=actor,
        )
        try:
            self._world.operations.append(line)
        except WriteFailed as error:
            self._warnings.append(f"not in the operations log: {error}")

    def _find_subject(self, text: str, subjects: Iterable[str]) -> str:
        """What is meant by `text`: a name or a slot as it is, or a short name. Raises `Refused`."""
        names = {ContainerName(subject) for subject in subjects}
        return find_by_name(text, names, self._world.person_uid) or text

    def _check_subject(self, text: str) -> str:
        """The subject that is meant, if any source names it.

        Docker is asked only for names not in the books. Raises `Refused`.
        """
        world = self._world
        state, metadata = world.state.read(), world.metadata.read()
        names: set[str] = set()
        if isinstance(state, AllocatorState):
            if text in state.slots:
                return text
            names.update(name for slot in state.slots.values() for name in slot.containers)
        if not isinstance(metadata, Unknown):
            names.update(metadata)
        subject = self._find_subject(text, names)
        if subject in names:
            return subject
        # Asked last: it is the slowest source, and a freeze must work while Docker hangs.
        docker = world.engine.observe(names=None)
        if isinstance(docker, Engine):
            subject = self._find_subject(text, docker.by_name)
            if subject in docker.by_name:
                return subject
            if isinstance(state, AllocatorState):
                slots = ", ".join(sorted(state.slots)) or "none"
                raise Refused(
                    f'no slot or container "{subject}": expected the name of a container,'
                    f" such as train._.1001, or a slot ({slots})"
                )
        failed = docker if isinstance(docker, Unknown) else state
        reason = "" if isinstance(failed, AllocatorState | Engine) else failed.reason
        # A freeze is a brake: it must not fail because a source is down.
        self._warnings.append(f'cannot check that "{subject}" exists: {reason}')
        return subject


def _trust_engine(checkpoint: Checkpoint) -> _Change[str]:
    other_engine = checkpoint.untrusted_engine
    if other_engine is None:
        raise Refused(
            "the last pass found the trusted engine (run ds01ctl reconcile to check again)"
            if checkpoint.engine is not None
            else "no pass has run yet: the first one trusts the engine that it finds"
        )
    line = f"engine {describe_engine(other_engine)}"
    trusted = replace(checkpoint, engine=other_engine, untrusted_engine=None)
    return _Change(trusted, line, EVERYTHING, line)


def _is_about(target: str, entry: str, undone: Undone) -> bool:
    """Whether the target is this undo: its entry, or one of its subjects."""
    subjects: set[str] = {part for pair in undone.taken | undone.given for part in pair}
    subjects |= {*undone.containers, *(key.slot for key in undone.drifts)}
    return target in {entry, *subjects}


def _describe_ended(ended: Freeze, now: Wall) -> str:
    why = f": {ended.reason}" if ended.reason else ""
    when = describe_moment(ended.since - now)
    return f"{name_subject(ended.subject)}, frozen by {ended.by} {when}{why}"


def _describe_not_frozen(
    target: str, freezes: Mapping[str, Freeze], undone: Mapping[str, Undone]
) -> str:
    blocked = f"; blocked by an undo: {', '.join(undone)}" if undone else ""
    if not freezes and target == EVERYTHING:
        return f"nothing is frozen{blocked}"
    others = ", ".join(sorted(map(name_subject, freezes))) or "nothing"
    return f"{name_subject(target)} is not frozen; frozen: {others}{blocked}"
