"""Runs `container-create`: completes its arguments, then shows the plan or creates."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import click

from ds01d.bootstrap import ContainerServices
from ds01d.cli.base.command import print_error
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.signals import defer_signals
from ds01d.cli.base.waiting import show_place
from ds01d.cli.containers.create_options import check_options
from ds01d.cli.output.blocks import Cell, Facts, Sentence, Tone
from ds01d.cli.output.display import show_blocks
from ds01d.config import Config
from ds01d.containers.context import CommandContext
from ds01d.containers.create import Creation
from ds01d.containers.order import CreateOptions, build_order
from ds01d.errors import Ds01Error, Interrupted, Refused
from ds01d.model.allocation import Rejected
from ds01d.model.creation import Created, Order, Progress
from ds01d.model.primitives import UserName, Wall
from ds01d.reconcile.allocator import Allocator
from ds01d.service.client import RemoteAllocator, find_service
from ds01d.text import make_printable

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
    config = invocation.config()
    caller = invocation.environment.find_caller()
    with invocation.environment.open_container_services(config) as services:
        if guided:
            from ds01d.cli.containers.guided import PromptContext, ask_options  # noqa: PLC0415 - rarely used

            options = ask_options(
                options, PromptContext(config=config, caller=caller, services=services)
            )
        order = build_order(options, config, caller, services.world.limits.read())
        if options.dry_run:
            _show_plan(order, services, config)
            return 0
        try:
            created = create_container(order, services, config, wait=options.wait)
        except Interrupted as interrupted:
            print_warning(str(interrupted))
            return 128 + interrupted.signal
    try:
        _show_created(order, created)
    # The container exists: the error must say so, or the user creates it again.
    except OSError as error:
        slots = ", ".join(booking.slot for booking in created.booked) or "none"
        outcome = f"{created.name} is created (GPU: {slots}), but the output failed"
        raise Ds01Error(f"{outcome}: {error.strerror}") from error
    return 0


def create_container(
    order: Order, services: ContainerServices, config: Config, *, wait: bool = False
) -> Created:
    """Create it; signals take effect between the steps."""
    context = command_context(services, config)
    if wait:
        context = replace(context, on_waiting=show_place)

    def abort() -> None:
        services.engine.cancel_pull()
        if isinstance(context.allocator, RemoteAllocator):
            context.allocator.cancel_wait()

    message = "interrupted: removing what was created so far"
    with defer_signals(context.interrupt, message, abort):
        return Creation(order, context).run()


def command_context(services: ContainerServices, config: Config) -> CommandContext:
    """What a container command works with, showing its progress on stderr."""
    service = find_service(config.booking_socket, RemoteAllocator)
    may_log = service is None or os.access(config.logs.operations, os.W_OK)
    return CommandContext(
        engine=services.engine,
        allocator=service or Allocator(services.world, config),
        world=services.world,
        keeps_log=may_log,
        warn=print_warning,
        show_pull=show_pull_progress,
    )


def show_pull_progress(steps: Iterator[Progress], image: str) -> None:
    """Follow a pull: a bar on a terminal, else a line when it begins."""
    if not sys.stderr.isatty():
        click.echo(f"pulling {make_printable(image)}", err=True)
        for _ in steps:
            pass
        return
    from rich.console import Console  # noqa: PLC0415 - slow to load
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"pulling {make_printable(image)}", total=None)
        for step in steps:
            bar.update(task, completed=step.done, total=step.total or None)


def print_warning(text: str) -> None:
    """Print a warning on stderr."""
    print_error("container", text)


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


def _show_created(order: Order, created: Created) -> None:
    slots = ", ".join(booking.slot for booking in created.booked)
    gpu = f"on GPU {slots}" if slots else "without a GPU"
    state = "runs" if order.start else "is created, not started,"
    lines = [Sentence(f"{created.name} {state} {gpu}, from {order.image}", Tone.GOOD)]
    if order.start:
        lines.append(Sentence(f"Enter it: container-enter {created.name}"))
    else:
        lines.append(Sentence(f"Start it: container-start {created.name}"))
    show_blocks(lines, Wall(time.time()))
