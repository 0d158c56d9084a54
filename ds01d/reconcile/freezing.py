"""Freezes and thaws: stop repairs by the daemon and by reconcile, and allow them again.

Freezes and the trusted engine are part of the checkpoint, so they change as in a pass: under the
lock of `state_dir`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ds01d.decide.checkpoint_clock import list_freezes_in_force
from ds01d.decide.engine_identity import describe_engine
from ds01d.decide.freezes import (
    EVERYTHING,
    anchor_freeze,
    describe_freeze,
    name_subject,
)
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


class Freezer:
    """Changes the freezes of one world in the name of `by`.

    Each method raises `Refused` where there is nothing to change, `LockTimeout` or `WriteFailed`.
    """

    def __init__(self, world: World, by: str) -> None:
        self._world, self._by = world, by
        self._warnings: list[str] = []

    def freeze(self, subject: str | None, seconds: float | None, reason: str) -> FreezeResult:
        """Stop repairs of a container or a slot; None: of everything."""

        def add_freeze(checkpoint: Checkpoint) -> tuple[Checkpoint, Freeze, str]:
            now = self._world.clock.now()
            target = EVERYTHING if subject is None else self._check_subject(subject)
            until = None if seconds is None else Wall(now.wall + seconds)
            new = Freeze(subject=target, by=self._by, reason=reason, since=now.wall, until=until)
            new = anchor_freeze(new, now)
            freezes = {**checkpoint.freezes, target: new}
            return replace(checkpoint, freezes=freezes), new, describe_freeze(new, now.wall)

        freeze = self._change_checkpoint(add_freeze, "freeze", subject)
        return FreezeResult(freeze=freeze, warnings=tuple(self._warnings))

    def thaw(self, subject: str | None) -> ThawResult:
        """End the freeze of a container or a slot, or what an undo blocks; None: of everything."""
        target = EVERYTHING if subject is None else subject

        def remove_freeze(checkpoint: Checkpoint) -> tuple[Checkpoint, tuple[str, ...], str]:
            now = self._world.clock.now()
            freezes = {freeze.subject: freeze for freeze in list_freezes_in_force(checkpoint, now)}
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
            return changed, tuple(lines), "; ".join(lines)

        lines = self._change_checkpoint(remove_freeze, "thaw", subject)
        return ThawResult(lines=lines, warnings=tuple(self._warnings))

    def trust_engine(self) -> ThawResult:
        """Trust the Docker engine that the last pass found, instead of the previous one."""
        line = self._change_checkpoint(_trust_engine, "thaw", None)
        return ThawResult(lines=(line,), warnings=tuple(self._warnings))

    def _change_checkpoint(
        self,
        change: Callable[[Checkpoint], tuple[Checkpoint, _Answer, str]],
        operation: str,
        subject: str | None,
    ) -> _Answer:
        """Change the checkpoint as a pass does, and log it: `change` gives the details, too."""
        with self._world.state_dir.lock():
            store = CheckpointStore(self._world.state_dir)
            checkpoint, problem = store.load()
            checkpoint, answer, details = change(checkpoint)
            if problem:
                self._warnings.append(problem)
                # Only now: a refused change must not move the checkpoint.
                store.set_aside()
            store.save(checkpoint)
            self._log_change(operation, subject, details)
        return answer

    def _log_change(self, operation: str, subject: str | None, details: str) -> None:
        """Append to the operations log; a failure is only a warning."""
        actor = self._world.actor
        line = LogLine(
            at=self._world.clock.now().wall,
            operation=operation,
            user="system" if actor is None else actor.login,
            container=subject or EVERYTHING,
            gpu="N/A",
            status="done",
            details=f"ds01ctl: {details}",
            actor=actor,
        )
        try:
            self._world.operations.append(line)
        except WriteFailed as error:
            self._warnings.append(f"not in the operations log: {error}")

    def _check_subject(self, subject: str) -> str:
        """The subject, if any source names it. Docker is asked only for names not in the books."""
        world = self._world
        state, metadata = world.state.read(), world.metadata.read()
        if isinstance(state, AllocatorState):
            booked = {name for slot in state.slots.values() for name in slot.containers}
            if subject in state.slots or subject in booked:
                return subject
        if not isinstance(metadata, Unknown) and subject in metadata:
            return subject
        # Asked last: it is the slowest source, and a freeze must work while Docker hangs.
        docker = world.engine.observe(names=None)
        if isinstance(docker, Engine):
            if ContainerName(subject) in docker.by_name:
                return subject
            if isinstance(state, AllocatorState):
                slots = ", ".join(sorted(state.slots)) or "none"
                raise Refused(
                    f'no slot or container "{subject}": expected the whole name of a container,'
                    f" such as train._.1001, or a slot ({slots})"
                )
        failed = docker if isinstance(docker, Unknown) else state
        reason = "" if isinstance(failed, AllocatorState | Engine) else failed.reason
        # A freeze is a brake: it must not fail because a source is down.
        self._warnings.append(f'cannot check that "{subject}" exists: {reason}')
        return subject


def _trust_engine(checkpoint: Checkpoint) -> tuple[Checkpoint, str, str]:
    other_engine = checkpoint.stranger
    if other_engine is None:
        raise Refused(
            "the last pass found the trusted engine (run ds01ctl reconcile to check again)"
            if checkpoint.engine is not None
            else "no pass has run yet: the first one trusts the engine that it finds"
        )
    line = f"engine {describe_engine(other_engine)}"
    return replace(checkpoint, engine=other_engine, stranger=None), line, line


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
