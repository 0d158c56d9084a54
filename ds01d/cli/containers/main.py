"""`container-create` and its sisters, which are `ds01ctl container create` and so on, too.

Reads arguments and shows what became of them; what is done is `containers`' affair.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

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
from ds01d.cli.base.signals import defer_signals
from ds01d.cli.containers import creation, list_view
from ds01d.cli.containers.create_options import CreateOptions
from ds01d.cli.containers.order import check_binds
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.cli.output.text import format_span
from ds01d.containers.create import CommandContext, Interrupt
from ds01d.containers.lifecycle import ContainerLifecycle
from ds01d.model.primitives import ContainerName, Wall
from ds01d.reconcile.allocator import Allocator

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
) -> int:
    """Create a container of FRAMEWORK, called NAME, with a GPU of its own, and start it.

    FRAMEWORK is one of the catalogue: "pytorch" for the newest, or "pytorch-2.5.0". Whatever fails
    on the way, nothing is left of it.

    Exit code: 0 created, 1 not created, 2 --guided without a terminal, 130 or 143 interrupted.
    """
    wish = CreateOptions(
        name=name,
        framework=framework,
        gpus=gpus,
        slots=slots,
        image=image,
        architecture=architecture,
        dry_run=dry_run,
        start=not no_start,
    )
    return creation.run_create(invocation, wish, guided=guided)


@click.command("container-list", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.option("-a", "--all", "every", is_flag=True, help="Also those that do not run.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, every: bool, as_json: bool) -> int:
    """Show your containers with the GPUs that are booked for them; root sees everybody's."""
    config = invocation.config()
    caller = invocation.environment.caller()
    with invocation.environment.open_world(config) as world:
        found = list_view.list_containers(world, caller, every=every)
        now = world.clock.now().wall
    if as_json:
        show_json(list_view.list_document(found))
    else:
        show_blocks(list_view.list_blocks(found, every=every), now)
    return ERROR if found.trouble else 0


@click.command("container-start", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", shell_complete=completion.own_stopped)
@click.pass_obj
def start(invocation: Invocation, *, name: str) -> int:
    """Start a container. If its hold is over, its GPU is booked again, where that is free."""
    with _open_lifecycle(invocation, name, whole=True) as (deeds, full):
        check_binds(deeds.tools.hands, full)
        booked = deeds.start(full)
    told = f"{full} runs"
    if booked:
        told += f", with GPU {', '.join(one.slot for one in booked)} booked again"
    _show_line(told)
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
    with _open_lifecycle(invocation, name) as (deeds, full):
        done = deeds.stop(full, patience_s)
    told = f"{full} is stopped" if done.ran else f"{full} was stopped already"
    _show_line(told if done.ran or not done.slots else f"{told}; its hold goes on")
    if done.slots:
        slots = ", ".join(done.slots)
        if done.hold_s is None:
            why = f" ({done.hold_problem})" if done.hold_problem else ""
            _show_line(f"It keeps GPU {slots} until it is removed{why}")
        else:
            _show_line(f"It keeps GPU {slots} for {format_span(done.hold_s)} after its stop")
    return 0


@click.command("container-remove", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", shell_complete=completion.own_containers)
@click.option("-f", "--force", is_flag=True, help="Also if it runs, or is protected.")
@click.pass_obj
def remove(invocation: Invocation, *, name: str, force: bool) -> int:
    """Remove a container and what is in it, and give back its GPU."""
    with _open_lifecycle(invocation, name, whole=True) as (deeds, full):
        slots = deeds.remove(full, force=force)
    _show_line(f"{full} is removed" + (f", GPU {', '.join(slots)} is free" if slots else ""))
    return 0


@click.group("container", cls=ExitCodeGroup, context_settings=_HELP)
@config_option
def container() -> None:
    """Create, list, start, stop and remove containers. Each is a command of its own, too."""


for _name, _command in (
    ("create", create),
    ("list", list_),
    ("start", start),
    ("stop", stop),
    ("remove", remove),
):
    container.add_command(_command, _name)


@contextmanager
def _open_lifecycle(
    invocation: Invocation, name: str, *, whole: bool = False
) -> Iterator[tuple[ContainerLifecycle, ContainerName]]:
    """What the caller may do, and the whole name. `whole`: signals wait until it is done."""
    environment, config = invocation.environment, invocation.config()
    caller = environment.caller()
    with environment.open_workshop(config) as workshop:
        interrupt = Interrupt()
        tools = CommandContext(
            hands=workshop.hands,
            allocator=Allocator(workshop.world, config),
            world=workshop.world,
            log=workshop.operations,
            tell=creation.print_warning,
            interrupt=interrupt,
        )
        deeds = ContainerLifecycle(tools=tools, caller=caller, user_of=creation.user_name)
        full = deeds.named(name)
        if not whole:
            yield deeds, full
            return
        with defer_signals(
            interrupt, "interrupted: what is begun is brought to its end", _do_nothing
        ):
            yield deeds, full


def _do_nothing() -> None:
    """Nothing that could be broken off."""


def _show_line(text: str) -> None:
    show_blocks([Sentence(text)], Wall(time.time()))
