"""`container-start`, `-stop` and `-remove`: the commands that change containers which exist."""

from __future__ import annotations

import time
from functools import partial

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import ExitCodeCommand, common_options
from ds01d.cli.base.context import Invocation
from ds01d.cli.containers.direct import open_commands
from ds01d.cli.containers.selection import Selection, run_each, select_names, show_intention
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks
from ds01d.model.primitives import Wall
from ds01d.text import format_span

_HELP = {"help_option_names": ["-h", "--help"]}
_guided_option = click.option("--guided", is_flag=True, help="Explain it, and ask for the name.")
_dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done.")


@click.command("container-start", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", required=False, shell_complete=completion.own_stopped)
@_guided_option
@_dry_run_option
@click.pass_obj
def start(invocation: Invocation, *, name: str | None, guided: bool, dry_run: bool) -> int:
    """Start a container. If its hold is over, its GPU is booked again, where that is free."""
    selection = Selection(
        verb="start", name=name, guided=guided, accepts=lambda state: not state.alive
    )
    names = select_names(invocation, selection)
    if dry_run:
        return show_intention(invocation, "start", names)
    return run_each("start", names, partial(_start_container, invocation))


def _start_container(invocation: Invocation, name: str) -> None:
    with open_commands(invocation) as commands:
        name_in_docker, slots = commands.start_container(name)
    message = f"{name_in_docker} is running"
    if slots:
        message += f", with GPU {', '.join(slots)} booked again"
    _show_line(message)


@click.command("container-stop", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", required=False, shell_complete=completion.own_running)
@click.option("-a", "--all", "every", is_flag=True, help="All your containers that run.")
@click.option(
    "-t",
    "--time",
    "--timeout",
    "patience_s",
    type=click.IntRange(0, 3600),
    default=10,
    show_default=True,
    help="Seconds that it gets to end by itself.",
)
@click.option("-f", "--force", is_flag=True, help="End it at once, as with --time 0.")
@click.option("-v", "--verbose", is_flag=True, help="Show how long it took.")
@_guided_option
@_dry_run_option
@click.pass_obj
def stop(
    invocation: Invocation,
    *,
    name: str | None,
    every: bool,
    patience_s: int,
    force: bool,
    verbose: bool,
    guided: bool,
    dry_run: bool,
) -> int:
    """Stop a container. It keeps its GPU for a while: the hold of its user's limits."""
    selection = Selection(
        verb="stop", name=name, every=every, guided=guided, accepts=lambda state: state.alive
    )
    names = select_names(invocation, selection)
    if dry_run:
        return show_intention(invocation, "stop", names)
    patience_s = 0 if force else patience_s
    act = partial(_stop_container, invocation, patience_s=patience_s, verbose=verbose)
    return run_each("stop", names, act)


def _stop_container(invocation: Invocation, name: str, *, patience_s: int, verbose: bool) -> None:
    began = time.monotonic()
    with open_commands(invocation) as commands:
        stopped = commands.stop_container(name, patience_s)
    took_s = time.monotonic() - began
    message = f"{stopped.name} is stopped" if stopped.ran else f"{stopped.name} was already stopped"
    _show_line(message if stopped.ran or not stopped.slots else f"{message}; its hold continues")
    if verbose and stopped.ran:
        end = "was killed" if took_s >= patience_s else "ended by itself"
        _show_line(f"it {end} within {took_s:.1f} s ({patience_s} s were allowed)")
    if stopped.slots:
        slots = ", ".join(stopped.slots)
        if stopped.hold_s is None:
            why = f" ({stopped.hold_problem})" if stopped.hold_problem else ""
            _show_line(f"keeps GPU {slots} until it is removed{why}")
        else:
            _show_line(f"keeps GPU {slots} for {format_span(stopped.hold_s)} after its stop")


@click.command("container-remove", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", required=False, shell_complete=completion.own_containers)
@click.option("-a", "--all", "every", is_flag=True, help="All your containers that do not run.")
@click.option("-f", "--force", is_flag=True, help="Also if it runs, or is protected.")
@click.option("-v", "--volumes", is_flag=True, help="Its anonymous volumes, too; always done.")
@_guided_option
@_dry_run_option
@click.pass_obj
def remove(
    invocation: Invocation,
    *,
    name: str | None,
    every: bool,
    force: bool,
    volumes: bool,  # noqa: ARG001 - scripts give it
    guided: bool,
    dry_run: bool,
) -> int:
    """Remove a container and what is in it, and give back its GPU."""
    selection = Selection(
        verb="remove",
        name=name,
        every=every,
        guided=guided,
        # "All" is what does not run; with questions, a running one can be chosen knowingly.
        accepts=lambda state: guided or not state.alive,
    )
    names = select_names(invocation, selection)
    if dry_run:
        return show_intention(invocation, "remove", names, force=force)
    return run_each("remove", names, partial(_remove_container, invocation, force=force))


def _remove_container(invocation: Invocation, name: str, *, force: bool) -> None:
    with open_commands(invocation) as commands:
        name_in_docker, slots = commands.remove_container(name, force=force)
    _show_line(
        f"{name_in_docker} is removed" + (f", GPU {', '.join(slots)} is free" if slots else "")
    )


def _show_line(text: str) -> None:
    show_blocks([Sentence(text)], Wall(time.time()))
