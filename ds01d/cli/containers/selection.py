"""Which containers a command is for: one by its name, all of the caller's, or one asked for."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from ds01d.cli.base.command import print_error
from ds01d.cli.base.context import Invocation
from ds01d.cli.containers.direct import open_commands
from ds01d.cli.containers.list_view import list_blocks
from ds01d.cli.output.blocks import Sentence, Title, Tone
from ds01d.cli.output.display import show_blocks
from ds01d.containers.listing import ContainerListRow, VisibleContainers
from ds01d.decide.short_names import split_name
from ds01d.errors import Ds01Error, Refused
from ds01d.model.containers import State
from ds01d.model.creation import Person
from ds01d.model.primitives import ContainerName, Wall

EXPLANATIONS = {
    "start": "Starts a container that was stopped. Its files are as they were. If its hold is over,"
    " its GPU is booked again, where that is free. To work in it: container-enter.",
    "stop": "Ends everything that runs in the container: training, notebooks, shells. Its files"
    " stay, and it keeps its GPU for a while, so that container-start can go on.",
    "remove": "Deletes the container and all that was installed in it, and gives back its GPU. What"
    " lies in mounted folders, like /workspace, stays.",
    "enter": "Opens a shell in the container. `exit` leaves it, and the container runs on; programs"
    " that run in it go on.",
    "logs": "Shows what the container's own command has written.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was given for the command called `verb`; `accepts`: the states that it is for."""

    verb: str
    name: str | None
    every: bool = False
    guided: bool = False
    accepts: Callable[[State], bool] = lambda _: True


def select_names(invocation: Invocation, selection: Selection) -> Sequence[str]:
    """The names, each as given or as in Docker. Raises `Ds01Error` and usage errors."""
    if selection.guided:
        _require_terminal(f"container-{selection.verb} NAME")
    elif selection.every and selection.name is not None:
        raise click.UsageError("--all and a NAME contradict")
    elif selection.name is not None:
        return [selection.name]
    elif not selection.every:
        raise click.UsageError("Missing argument 'NAME' (or --guided, which asks for it)")
    rows = [row for row in _list_rows(invocation) if selection.accepts(row.state)]
    if selection.guided:
        return [_ask_name(selection, rows)]
    # "All" of root are root's own, not everybody's.
    caller = invocation.environment.find_caller().person
    return [row.name for row in rows if _is_of(row, caller)]


def _list_rows(invocation: Invocation) -> Sequence[ContainerListRow]:
    """All containers that the caller may see. Raises `Ds01Error` where Docker does not answer."""
    with open_commands(invocation) as commands:
        visible = commands.list_containers(with_stopped=True)
    if "docker" in visible.failures:
        raise Ds01Error(visible.failures["docker"])
    return visible.rows


def _is_of(row: ContainerListRow, person: Person) -> bool:
    _, uid = split_name(row.name)
    return row.user == person.name if uid is None else uid == person.uid


def run_each(verb: str, names: Sequence[str], act: Callable[[str], None]) -> int:
    """Do it with each, whatever becomes of the others; the exit code."""
    if not names:
        show_blocks([Sentence(f"no container to {verb}")], Wall(time.time()))
    code = 0
    for name in names:
        try:
            act(name)
        except Ds01Error as error:  # noqa: PERF203 - a handful
            # Of one container the error's own exit code counts.
            if len(names) == 1:
                raise
            code = print_error(f"container-{verb}", str(error))
    return code


def show_intention(
    invocation: Invocation,
    verb: str,
    names: Sequence[str],
    *,
    force: bool = False,
    words: Sequence[str] = (),
) -> int:
    """--dry-run: what would be done with each. `words`: what would be run in it."""
    caller = invocation.environment.find_caller().person
    rows: dict[str, ContainerListRow] = {}
    for row in _list_rows(invocation):
        rows[row.name] = row
        # One's own by the short name too, which the same name of somebody else must not take.
        if _is_of(row, caller):
            rows[split_name(row.name)[0]] = row
    code = 0
    show_blocks([Sentence("dry run, nothing is changed")], Wall(time.time()))
    for name in names:
        try:
            if name not in rows:
                raise Refused(f'no container "{name}"')
            text = _describe_intention(verb, rows[name], force=force, words=words)
            show_blocks([Sentence(text)], Wall(time.time()))
        except Ds01Error as error:  # noqa: PERF203 - a handful
            code = print_error(f"container-{verb}", str(error))
    return code


def _describe_intention(
    verb: str, row: ContainerListRow, *, force: bool, words: Sequence[str]
) -> str:
    """Raises `Refused` where the command would."""
    name, is_alive = row.name, row.state.alive
    slots = "unknown" if row.slots is None else ", ".join(row.slots)
    if verb == "start":
        if is_alive:
            return f"{name} is already running"
        return f"would start {name}" + (f", which has GPU {slots}" if slots else "")
    if verb == "enter":
        if row.state is not State.RUNNING:
            raise Refused(f"{name} is not running ({row.state})")
        return f"would run in {name}: {shlex.join(words)}"
    if verb == "stop":
        if not is_alive:
            return f"{name} is already stopped"
        return f"would stop {name}" + (f", which keeps GPU {slots} for a while" if slots else "")
    if is_alive and not force:
        raise Refused(f"{name} is {row.state}: container-stop it first, or use --force")
    return f"would remove {name}" + (f", and give back GPU {slots}" if slots else "")


def _require_terminal(instead: str) -> None:
    """Raise a usage error where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(f"--guided needs a terminal; without one: {instead}")


def _ask_name(selection: Selection, rows: Sequence[ContainerListRow]) -> str:
    verb = selection.verb
    now = Wall(time.time())
    show_blocks([Title(f"container-{verb}"), Sentence(EXPLANATIONS[verb])], now)
    if not rows:
        raise Refused(f"no container to {verb}")
    show_blocks(
        list_blocks(VisibleContainers(rows=tuple(rows), failures={}), with_stopped=True), now
    )
    names: dict[str, str] = {row.name: row.name for row in rows}
    names |= {split_name(ContainerName(name))[0]: name for name in names}

    def parse_name(text: str) -> str:
        if text not in names:
            raise click.UsageError(f"no container {text!r} in this list")
        return names[text]

    default = selection.name if selection.name in names else None
    if default is None and len(rows) == 1:
        default = split_name(rows[0].name)[0]
    name: str = click.prompt("Name", default=default, value_proc=parse_name)
    show_blocks(
        [
            Title("The same without questions"),
            Sentence(f"  container-{verb} {name}", Tone.STRONG),
        ],
        now,
    )
    if verb != "logs":
        # A mere Enter removes nothing.
        click.confirm(f"{verb.capitalize()} it now?", default=verb != "remove", abort=True)
    return name
