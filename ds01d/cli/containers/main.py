"""`container-create` and its siblings, also available as `ds01ctl container create` and so on.

Reads arguments and shows results; the work is done in `ds01d.containers`.
"""

from __future__ import annotations

import time

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import (
    ERROR,
    ExitCodeCommand,
    ExitCodeGroup,
    common_options,
    config_option,
    json_option,
)
from ds01d.cli.base.context import Invocation
from ds01d.cli.containers import creation, list_view
from ds01d.cli.containers.direct import open_commands
from ds01d.cli.containers.enter import enter, logs
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.containers.order import CreateOptions
from ds01d.model.primitives import Wall
from ds01d.text import format_span

_HELP = {"help_option_names": ["-h", "--help"]}


@click.command("container-create", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", required=False)
@click.argument("framework", required=False, shell_complete=completion.frameworks)
@click.option("--guided", is_flag=True, help="Ask for everything, and explain it.")
@click.option("--gpus", type=click.IntRange(0, 64), metavar="N", help="How many slots [1].")
@click.option(
    "--slot",
    "slots",
    multiple=True,
    metavar="1.2",
    shell_complete=completion.slots,
    help="This slot; may be repeated.",
)
@click.option("--image", metavar="IMG", help="This image, in the place of the catalogue's.")
@click.option("--architecture", metavar="ARCH", help="As the catalogue names it [this host's].")
@click.option("--dry-run", is_flag=True, help="Show what would be created; book nothing.")
@click.option("--no-start", is_flag=True, help="Create it, and do not start it.")
@click.option("--wait", is_flag=True, help="Wait for a slot; Ctrl-C ends that.")
@click.pass_obj
def create(
    invocation: Invocation,
    *,
    name: str | None,
    framework: str | None,
    guided: bool,
    gpus: int | None,
    slots: tuple[str, ...],
    image: str | None,
    architecture: str | None,
    dry_run: bool,
    no_start: bool,
    wait: bool,
) -> int:
    """Create a container of FRAMEWORK, called NAME, with a GPU of its own, and start it.

    FRAMEWORK is one of the catalogue: "pytorch" for the newest, or "pytorch-2.5.0". Whatever fails
    on the way, nothing is left of it.

    Exit code: 0 created, 1 not created, 2 --guided without a terminal, 130 or 143 interrupted.
    """
    options = CreateOptions(
        name=name,
        framework=framework,
        gpus=gpus,
        slots=slots,
        image=image,
        architecture=architecture,
        dry_run=dry_run,
        start=not no_start,
        wait=wait,
    )
    return creation.run_create(invocation, options, guided=guided)


@click.command("container-list", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.option("-a", "--all", "every", is_flag=True, help="Also those that do not run.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, every: bool, as_json: bool) -> int:
    """Show your containers with the GPUs that are booked for them; root sees everybody's."""
    with open_commands(invocation) as commands:
        containers = commands.list(with_stopped=every)
    if as_json:
        show_json(list_view.list_document(containers))
    else:
        show_blocks(list_view.list_blocks(containers, with_stopped=every), Wall(time.time()))
    return ERROR if containers.failures else 0


@click.command("container-start", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", shell_complete=completion.own_stopped)
@click.pass_obj
def start(invocation: Invocation, *, name: str) -> int:
    """Start a container. If its hold is over, its GPU is booked again, where that is free."""
    with open_commands(invocation) as commands:
        name_in_docker, slots = commands.start(name)
    message = f"{name_in_docker} is running"
    if slots:
        message += f", with GPU {', '.join(slots)} booked again"
    _show_line(message)
    return 0


@click.command("container-stop", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", shell_complete=completion.own_running)
@click.option(
    "-t",
    "--time",
    "patience_s",
    type=click.IntRange(0, 3600),
    default=10,
    show_default=True,
    help="Seconds that it gets to end by itself.",
)
@click.pass_obj
def stop(invocation: Invocation, *, name: str, patience_s: int) -> int:
    """Stop a container. It keeps its GPU for a while: the hold of its user's limits."""
    with open_commands(invocation) as commands:
        stopped = commands.stop(name, patience_s)
    message = f"{stopped.name} is stopped" if stopped.ran else f"{stopped.name} was already stopped"
    _show_line(message if stopped.ran or not stopped.slots else f"{message}; its hold continues")
    if stopped.slots:
        slots = ", ".join(stopped.slots)
        if stopped.hold_s is None:
            why = f" ({stopped.hold_problem})" if stopped.hold_problem else ""
            _show_line(f"keeps GPU {slots} until it is removed{why}")
        else:
            _show_line(f"keeps GPU {slots} for {format_span(stopped.hold_s)} after its stop")
    return 0


@click.command("container-remove", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", shell_complete=completion.own_containers)
@click.option("-f", "--force", is_flag=True, help="Also if it runs, or is protected.")
@click.pass_obj
def remove(invocation: Invocation, *, name: str, force: bool) -> int:
    """Remove a container and what is in it, and give back its GPU."""
    with open_commands(invocation) as commands:
        name_in_docker, slots = commands.remove(name, force=force)
    _show_line(
        f"{name_in_docker} is removed" + (f", GPU {', '.join(slots)} is free" if slots else "")
    )
    return 0


@click.group("container", cls=ExitCodeGroup, context_settings=_HELP)
@config_option
def container() -> None:
    """Create, list, enter, stop and remove containers. Each is a command of its own, too."""


for _name, _command in (
    ("create", create),
    ("list", list_),
    ("start", start),
    ("stop", stop),
    ("remove", remove),
    ("enter", enter),
    ("logs", logs),
):
    container.add_command(_command, _name)


def _show_line(text: str) -> None:
    show_blocks([Sentence(text)], Wall(time.time()))
