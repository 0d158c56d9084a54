"""`ds01ctl freeze` and `thaw`: stop repairs by the daemon and by reconcile, and allow them again.

Freezes and the trusted engine are part of the checkpoint, so they change as in a pass: under the
lock of `state_dir`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import click

from ds01d.cli.base import completion
from ds01d.cli.base.caller import caller_name
from ds01d.cli.base.command import CONSISTENT, config_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_duration
from ds01d.cli.ctl.explain_checkpoint import freezes_in_force
from ds01d.cli.ctl.status_view import describe_freeze
from ds01d.cli.output.text import DisplayTime
from ds01d.config import Config
from ds01d.decide.engine_identity import describe_engine
from ds01d.decide.freezes import anchor_freeze
from ds01d.errors import NotPermitted, WriteFailed
from ds01d.model.books import AllocatorState, LogLine
from ds01d.model.checkpoint import Checkpoint, Freeze, Undone
from ds01d.model.containers import Engine
from ds01d.model.primitives import ContainerName, Unknown, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.ports import World
from ds01d.text import make_printable

EVERYTHING = "*"
_LONGEST_REASON = 200
_Answer = TypeVar("_Answer")


@click.command()
@click.argument(
    "subject", metavar="[NAME|SLOT]", required=False, shell_complete=completion.subjects
)
@click.option(
    "--for", "seconds", callback=parse_duration, metavar="2h", help="Thaw automatically after it."
)
@click.option("--reason", default="", help="Why, for others to read.")
@config_option
@click.pass_obj
def freeze(
    invocation: Invocation, *, subject: str | None, seconds: float | None, reason: str
) -> int:
    """Stop repairs until thawed: of everything, or of one container or slot.

    Applies to the daemon and to reconcile, not to the allocator.
    """
    config = invocation.config()
    reason = reason.strip()
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise click.UsageError(
            f"--reason: expected one line of at most {_LONGEST_REASON} characters"
        )

    def add_freeze(memory: Checkpoint, world: World) -> tuple[Checkpoint, Freeze]:
        now = world.clock.now().wall
        target = EVERYTHING if subject is None else _check_subject(subject, world)
        until = None if seconds is None else Wall(now + seconds)
        new = Freeze(subject=target, by=caller_name(), reason=reason, since=now, until=until)
        new = anchor_freeze(new, world.clock.now())
        return replace(memory, freezes={**memory.freezes, target: new}), new

    new_freeze = _change_checkpoint(invocation, config, add_freeze, "freeze", subject)
    click.echo(f"Frozen: {make_printable(describe_freeze(new_freeze, new_freeze.since))}")
    return CONSISTENT


@click.command()
@click.argument(
    "subject", metavar="[NAME|SLOT]", required=False, shell_complete=completion.subjects
)
@click.option("--engine", is_flag=True, help="Trust the Docker engine that answers now.")
@config_option
@click.pass_obj
def thaw(invocation: Invocation, *, subject: str | None, engine: bool) -> int:
    """End the freeze of everything, or of one container or slot; or allow what an undo blocks.

    What `undo` took back is not repaired again until its container, its slot or the ID of the undo
    is thawed. With --engine: trust the Docker engine in use now instead of the previous one; until
    then nothing is released.
    """
    if engine and subject is not None:
        raise click.UsageError("--engine applies to the whole host: leave out the name")
    config = invocation.config()
    if engine:
        trusted = _change_checkpoint(invocation, config, _trust_engine, "thaw", None)
        click.echo(f"Trusted: {make_printable(trusted)}")
        return CONSISTENT
    target = EVERYTHING if subject is None else subject

    def remove_freeze(memory: Checkpoint, world: World) -> tuple[Checkpoint, list[str]]:
        now = world.clock.now()
        freezes = {freeze.subject: freeze for freeze in freezes_in_force(memory, now)}
        undone = {
            entry: freeze
            for entry, freeze in memory.undone.items()
            if _is_about(target, entry, freeze)
        }
        if target not in freezes and not undone:
            raise click.ClickException(_describe_not_frozen(target, freezes, memory.undone))
        trusted = [_describe_ended(freezes[target], now.wall)] if target in freezes else []
        trusted += [f"what {entry} took back may be repaired again" for entry in undone]
        return replace(
            memory,
            freezes={s: f for s, f in freezes.items() if s != target},
            undone={e: u for e, u in memory.undone.items() if e not in undone},
        ), trusted

    for line in _change_checkpoint(invocation, config, remove_freeze, "thaw", subject):
        click.echo(f"Thawed: {make_printable(line)}")
    return CONSISTENT


def _is_about(target: str, entry: str, undone: Undone) -> bool:
    """Whether the target is this undo: its entry, or one of its subjects."""
    subjects: set[str] = {part for pair in undone.taken | undone.given for part in pair}
    subjects |= {*undone.containers, *(key.slot for key in undone.drifts)}
    return target in {entry, *subjects}


def _describe_ended(ended: Freeze, now: Wall) -> str:
    why = f": {ended.reason}" if ended.reason else ""
    when = DisplayTime(ended.since).relative_to(now)
    return f"{_subject_name(ended.subject)}, frozen by {ended.by} {when}{why}"


def _change_checkpoint(
    invocation: Invocation,
    config: Config,
    change: Callable[[Checkpoint, World], tuple[Checkpoint, _Answer]],
    operation: str,
    subject: str | None,
) -> _Answer:
    """Change the checkpoint as a pass does, and log it. Raises `LockTimeout`, `NotPermitted`."""
    try:
        invocation.environment.make_state_dir(config)
        with invocation.environment.open_world(config) as world, world.state_dir.lock():
            store = CheckpointStore(world.state_dir)
            checkpoint, problem = store.load()
            checkpoint, answer = change(checkpoint, world)
            if problem:
                click.echo(f"ds01ctl: {make_printable(problem)}", err=True)
                # Only now: a refused change must not move the checkpoint.
                store.set_aside()
            store.save(checkpoint)
            _log_change(world, operation, subject, answer)
    except WriteFailed as error:
        # The error names a lock file, which a user cannot do anything about.
        if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            fix = f"try: sudo ds01ctl {operation}"
            raise NotPermitted(f"only root can {operation} repairs ({fix})") from error
        raise
    return answer


def _log_change(world: World, operation: str, subject: str | None, answer: object) -> None:
    """Append to the operations log; a failure is only reported."""
    now = world.clock.now().wall
    match answer:
        case Freeze():
            details = describe_freeze(answer, now)
        case list():
            details = "; ".join(map(str, answer))
        case _:
            details = str(answer)
    line = LogLine(
        at=now,
        operation=operation,
        user="system" if world.actor is None else world.actor.login,
        container=subject or EVERYTHING,
        gpu="N/A",
        status="done",
        details=f"ds01ctl: {details}",
        actor=world.actor,
    )
    try:
        world.operations.append(line)
    except WriteFailed as error:
        click.echo(f"ds01ctl: not in the operations log: {make_printable(str(error))}", err=True)


def _trust_engine(checkpoint: Checkpoint, _: World) -> tuple[Checkpoint, str]:
    other_engine = checkpoint.stranger
    if other_engine is None:
        raise click.ClickException(
            "the last pass found the trusted engine (run ds01ctl reconcile to check again)"
            if checkpoint.engine is not None
            else "no pass has run yet: the first one trusts the engine that it finds"
        )
    return replace(
        checkpoint, engine=other_engine, stranger=None
    ), f"engine {describe_engine(other_engine)}"


def _check_subject(subject: str, world: World) -> str:
    """The subject, if any source names it. Docker is asked only for names not in the books."""
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
            raise click.ClickException(
                f'no slot or container "{subject}": expected the whole name of a container, such as'
                f" train._.1001, or a slot ({slots})"
            )
    failed = docker if isinstance(docker, Unknown) else state
    reason = "" if isinstance(failed, AllocatorState | Engine) else failed.reason
    # A freeze is a brake: it must not fail because a source is down.
    click.echo(f'ds01ctl: cannot check that "{make_printable(subject)}" exists: {reason}', err=True)
    return subject


def _describe_not_frozen(
    target: str, freezes: Mapping[str, Freeze], undone: Mapping[str, Undone]
) -> str:
    blocked = f"; blocked by an undo: {', '.join(undone)}" if undone else ""
    if not freezes and target == EVERYTHING:
        return f"nothing is frozen{blocked}"
    others = ", ".join(sorted(_subject_name(subject) for subject in freezes)) or "nothing"
    return f"{_subject_name(target)} is not frozen; frozen: {others}{blocked}"


def _subject_name(subject: str) -> str:
    return "everything" if subject == EVERYTHING else subject
