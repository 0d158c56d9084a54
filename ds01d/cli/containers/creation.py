"""Runs `container-create`: completes its arguments, then shows the plan or creates."""

from __future__ import annotations

import shlex
import sys
import time

import click

from ds01d.bootstrap import ContainerServices
from ds01d.cli.base.context import Invocation
from ds01d.cli.containers.create_options import check_options
from ds01d.cli.containers.direct import DirectContainers, find_remote, make_remote, print_warning
from ds01d.cli.output.blocks import Cell, Facts, Sentence, Tone
from ds01d.cli.output.display import show_blocks
from ds01d.config import Config
from ds01d.containers.commands import ContainerCommands, CreatedContainer
from ds01d.containers.order import CreateOptions, build_order
from ds01d.errors import Ds01Error, Interrupted, Refused
from ds01d.model.allocation import Rejected
from ds01d.model.creation import Order
from ds01d.model.primitives import UserName, Wall
from ds01d.reconcile.allocator import Allocator

NO_TERMINAL = 2


def run_create(invocation: Invocation, options: CreateOptions, *, guided: bool) -> int:
    """Run the command and return the exit code."""
    if guided and not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(
            "container-create: --guided needs a terminal; without one, give all arguments:"
            " container-create NAME FRAMEWORK [--gpus N] [--slot SLOT] [--image IMAGE]",
            err=True,
        )
        return NO_TERMINAL
    check_options(options, guided=guided)
    remote = find_remote(invocation.config(), make_remote)
    if remote is not None:
        if guided or options.dry_run:
            raise Refused("--guided and --dry-run need access to Docker")
        return _create(remote, options)
    config, caller = invocation.config(), invocation.environment.find_caller()
    with invocation.environment.open_container_services(config) as services:
        if guided:
            from ds01d.cli.containers.guided import PromptContext, ask_options  # noqa: PLC0415 - rarely used

            options = ask_options(
                options, PromptContext(config=config, caller=caller, services=services)
            )
        if options.dry_run:
            limits = services.world.limits.read()
            _show_plan(build_order(options, config, caller, limits), services, config)
            return 0
        return _create(DirectContainers(services=services, config=config, caller=caller), options)


def _create(commands: ContainerCommands, options: CreateOptions) -> int:
    """Create it, and show what was created; the exit code."""
    try:
        created = commands.create(options)
    except Interrupted as interrupted:
        print_warning(str(interrupted))
        return 128 + interrupted.signal
    try:
        _show_created(created)
    # The container exists: the error must say so, or the user creates it again.
    except OSError as error:
        slots = ", ".join(created.slots) or "none"
        outcome = f"{created.name} is created (GPU: {slots}), but the output failed"
        raise Ds01Error(f"{outcome}: {error.strerror}") from error
    return 0


def _show_plan(order: Order, services: ContainerServices, config: Config) -> None:
    """Show what would be created. Asks Docker and the books, and changes nothing."""
    if services.engine.find_container(order.name) is not None:
        raise Refused(f'container "{order.name}" already exists')
    is_present = services.engine.has_image(order.image)
    rows: list[tuple[str, Cell]] = [
        ("name", order.name),
        ("user", order.owner.name),
        ("framework", order.framework),
        ("image", f"{order.image} ({'present' if is_present else 'to be pulled'})"),
        ("GPUs", _would_book(order, services, config)),
        ("command", shlex.join(order.setup.command) or "the default of the image"),
        ("mounts", list(order.setup.mounts)),
        ("start", order.start),
    ]
    show_blocks(
        [Sentence("dry run, nothing is changed; would create:"), Facts(rows)], Wall(time.time())
    )


def _would_book(order: Order, services: ContainerServices, config: Config) -> Cell:
    if not order.slots:
        return "none"
    answers = Allocator(services.world, config).preview_slots(
        UserName(order.owner.name), order.name
    )
    planned: list[str] = []
    for slot in order.slots:
        answer = answers.get(slot)
        if answer is None:
            existing = ", ".join(name for name in answers if name is not None)
            raise Refused(f'no slot "{slot}"; slots: {existing}')
        if isinstance(answer, Rejected):
            raise Refused(f"no GPU: {answer.reason}")
        planned.append(f"{answer.slot} ({answer.device or answer.docker_id})")
    if len(order.slots) > 1 and order.slots[0] is None:
        planned = [f"{len(order.slots)}, the first of them {planned[0]}"]
    return planned


def _show_created(created: CreatedContainer) -> None:
    gpu = f"on GPU {', '.join(created.slots)}" if created.slots else "without a GPU"
    state = "runs" if created.is_started else "is created, not started,"
    lines = [Sentence(f"{created.name} {state} {gpu}, from {created.image}", Tone.GOOD)]
    if created.is_started:
        lines.append(Sentence(f"Enter it: container-enter {created.name}"))
    else:
        lines.append(Sentence(f"Start it: container-start {created.name}"))
    show_blocks(lines, Wall(time.time()))
