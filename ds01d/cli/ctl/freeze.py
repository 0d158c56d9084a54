"""`ds01ctl freeze` and `thaw`: what holds the daemon's repairs and those of reconcile.

Freezes and the trusted engine are part of the memory, so they are changed as a pass changes it:
under the lock of `state_dir`.
"""

from __future__ import annotations

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
from ds01d.cli.output.text import DisplayTime, make_printable
from ds01d.config import Config
from ds01d.decide.engine_identity import describe_engine
from ds01d.decide.gate import anchor_freeze
from ds01d.errors import WriteFailed
from ds01d.model.books import AllocatorState, LogLine
from ds01d.model.checkpoint import Checkpoint, Freeze, Undone
from ds01d.model.containers import Engine
from ds01d.model.primitives import ContainerName, Unknown, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.ports import World

EVERYTHING = "*"
_LONGEST_REASON = 200
_Answer = TypeVar("_Answer")


@click.command()
@click.argument(
    "subject", metavar="[NAME|SLOT]", required=False, shell_complete=completion.subjects
)
@click.option(
    "--for", "seconds", callback=parse_duration, metavar="2h", help="Thaw by itself after it."
)
@click.option("--reason", default="", help="Why, for whoever wonders.")
@config_option
@click.pass_obj
def freeze(
    invocation: Invocation, *, subject: str | None, seconds: float | None, reason: str
) -> int:
    """Let nothing be repaired until it is thawed: all, or one container or slot.

    Binds the daemon and reconcile, not the allocator.
    """
    config = invocation.config()
    reason = reason.strip()
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise click.UsageError(f"--reason wants one line of at most {_LONGEST_REASON} characters")

    def frozen(memory: Checkpoint, world: World) -> tuple[Checkpoint, Freeze]:
        now = world.clock.now().wall
        what = EVERYTHING if subject is None else _check_subject(subject, world)
        until = None if seconds is None else Wall(now + seconds)
        new = Freeze(subject=what, by=caller_name(), reason=reason, since=now, until=until)
        new = anchor_freeze(new, world.clock.now())
        return replace(memory, freezes={**memory.freezes, what: new}), new

    made = _change_checkpoint(invocation, config, frozen, "freeze", subject)
    click.echo(f"Frozen: {make_printable(describe_freeze(made, made.since))}")
    return CONSISTENT


@click.command()
@click.argument(
    "subject", metavar="[NAME|SLOT]", required=False, shell_complete=completion.subjects
)
@click.option("--engine", is_flag=True, help="Trust the Docker engine that answers now.")
@config_option
@click.pass_obj
def thaw(invocation: Invocation, *, subject: str | None, engine: bool) -> int:
    """End the freeze of everything, or of one container or slot; or what an undo holds.

    What was taken back with `undo` is not done again until its container, its slot or the id of
    the undo is thawed. With --engine: trust the Docker engine that answers now instead of the one
    before; until then nothing is released.
    """
    if engine and subject is not None:
        raise click.UsageError("--engine is about the whole host: leave out the name")
    config = invocation.config()
    if engine:
        told = _change_checkpoint(invocation, config, _trust_engine, "thaw", None)
        click.echo(f"Trusted: {make_printable(told)}")
        return CONSISTENT
    what = EVERYTHING if subject is None else subject

    def thawed(memory: Checkpoint, world: World) -> tuple[Checkpoint, list[str]]:
        now = world.clock.now()
        standing = {one.subject: one for one in freezes_in_force(memory, now)}
        held = {entry: one for entry, one in memory.undone.items() if _is_about(what, entry, one)}
        if what not in standing and not held:
            raise click.ClickException(_describe_not_frozen(what, standing, memory.undone))
        told = [_describe_ended(standing[what], now.wall)] if what in standing else []
        told += [f"what {entry} took back may be done again" for entry in held]
        return replace(
            memory,
            freezes={s: f for s, f in standing.items() if s != what},
            undone={e: u for e, u in memory.undone.items() if e not in held},
        ), told

    for line in _change_checkpoint(invocation, config, thawed, "thaw", subject):
        click.echo(f"Thawed: {make_printable(line)}")
    return CONSISTENT


def _is_about(what: str, entry: str, one: Undone) -> bool:
    """Whether that is what is held as taken back: its entry, or one of its subjects."""
    subjects: set[str] = {part for pair in one.taken | one.given for part in pair}
    subjects |= {*one.containers, *(key.rpartition("|")[2] for key in one.drifts)}
    return what in {entry, *subjects}


def _describe_ended(ended: Freeze, now: Wall) -> str:
    why = f": {ended.reason}" if ended.reason else ""
    when = DisplayTime(ended.since).away(now)
    return f"{_subject_name(ended.subject)}, frozen by {ended.by} {when}{why}"


def _change_checkpoint(
    invocation: Invocation,
    config: Config,
    change: Callable[[Checkpoint, World], tuple[Checkpoint, _Answer]],
    operation: str,
    subject: str | None,
) -> _Answer:
    """Change the memory as a pass does, and log it. Raises `LockTimeout`, `WriteFailed`."""
    invocation.environment.make_state_dir(config)
    with invocation.environment.open_world(config) as world, world.state_dir.lock():
        store = CheckpointStore(world.state_dir)
        memory, trouble = store.load()
        memory, answer = change(memory, world)
        if trouble:
            click.echo(f"ds01ctl: {make_printable(trouble)}", err=True)
            store.set_aside()
        store.save(memory)
        _log_change(world, operation, subject, answer)
    return answer


def _log_change(world: World, operation: str, subject: str | None, answer: object) -> None:
    """A line in the operations log; without it the change stands all the same."""
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


def _trust_engine(memory: Checkpoint, _: World) -> tuple[Checkpoint, str]:
    new = memory.stranger
    if new is None:
        raise click.ClickException(
            "the last pass saw no other engine than the trusted one; ds01ctl reconcile looks again"
            if memory.engine is not None
            else "no engine was seen yet: the first one that answers is trusted"
        )
    return replace(memory, engine=new, stranger=None), f"engine {describe_engine(new)}"


def _check_subject(subject: str, world: World) -> str:
    """The subject, if any source names it. Docker is asked only for what the books do not name."""
    state, metadata = world.state.read(), world.metadata.read()
    if isinstance(state, AllocatorState):
        booked = {name for slot in state.slots.values() for name in slot.containers}
        if subject in state.slots or subject in booked:
            return subject
    if not isinstance(metadata, Unknown) and subject in metadata:
        return subject
    docker = world.engine.observe(names=None)
    if isinstance(docker, Engine):
        if ContainerName(subject) in docker.by_name:
            return subject
        if isinstance(state, AllocatorState):
            slots = ", ".join(sorted(state.slots)) or "there is none"
            raise click.ClickException(
                f"neither the books nor Docker know {subject}; write a container's whole name,"
                f" like train._.1001, or a slot: {slots}"
            )
    silent = docker if isinstance(docker, Unknown) else state
    told = "" if isinstance(silent, AllocatorState | Engine) else silent.reason
    click.echo(f"ds01ctl: whether {make_printable(subject)} exists is not known: {told}", err=True)
    return subject


def _describe_not_frozen(
    what: str, standing: Mapping[str, Freeze], undone: Mapping[str, Undone]
) -> str:
    others = ", ".join(sorted(_subject_name(subject) for subject in standing))
    there = f"frozen {'is' if len(standing) == 1 else 'are'} {others}" if others else "nothing is"
    held = f"; held as undone: {', '.join(undone)}" if undone else ""
    return f"{_subject_name(what)} is not frozen; {there}{held}"


def _subject_name(subject: str) -> str:
    return "everything" if subject == EVERYTHING else subject
