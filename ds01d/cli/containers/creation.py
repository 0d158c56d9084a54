"""Runs `container-create`: completes its arguments, then shows the plan or creates."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence

import click

from ds01d.cli.base.command import ERROR
from ds01d.cli.base.context import Invocation
from ds01d.cli.containers.create_document import (
    created_document,
    plan_document,
    refusal_document,
)
from ds01d.cli.containers.create_options import check_options
from ds01d.cli.containers.direct import open_commands, print_warning
from ds01d.cli.output.blocks import Cell, Facts, Sentence, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.cli.output.quota_text import format_left, format_other_hosts
from ds01d.containers.commands import ContainerCommands, CreatedContainer
from ds01d.containers.order import CreateOptions
from ds01d.containers.preview import CreationPlan
from ds01d.errors import Ds01Error, Interrupted
from ds01d.model.primitives import Wall

NO_TERMINAL = 2


def run_create(
    invocation: Invocation, options: CreateOptions, *, guided: bool, as_json: bool = False
) -> int:
    """Run the command and return the exit code."""
    if guided and as_json:
        raise click.UsageError("--guided and --json contradict")
    if guided and not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(
            "container-create: --guided needs a terminal; without one, give all arguments:"
            " container-create NAME FRAMEWORK [--gpus N] [--slot SLOT] [--image IMAGE]",
            err=True,
        )
        return NO_TERMINAL
    check_options(options, guided=guided)
    if as_json:
        return _create_for_programs(invocation, options)
    with open_commands(invocation) as commands:
        if guided:
            options = _ask_options(invocation, options, commands)
        if options.dry_run:
            plan = commands.preview_container(options)
            _show_plan(plan, _list_quota_rows(invocation, plan))
            return 0
        return _create_container(commands, options)


def _create_for_programs(invocation: Invocation, options: CreateOptions) -> int:
    """As the command for people, with its outcome as one object on stdout."""
    try:
        with open_commands(invocation) as commands:
            if options.dry_run:
                show_json("container-create", plan_document(commands.preview_container(options)))
                return 0
            created = commands.create_container(options)
    except Interrupted as interrupted:
        show_json("container-create", refusal_document(str(interrupted)))
        return 128 + interrupted.signal
    except Ds01Error as error:
        show_json("container-create", refusal_document(str(error)))
        return ERROR
    show_json("container-create", created_document(created))
    return 0


def _ask_options(
    invocation: Invocation, options: CreateOptions, commands: ContainerCommands
) -> CreateOptions:
    from ds01d.cli.containers.guided import PromptContext, ask_options  # noqa: PLC0415 - rarely used

    config, caller = invocation.config(), invocation.environment.find_caller()
    return ask_options(options, PromptContext(config=config, caller=caller, commands=commands))


def _create_container(commands: ContainerCommands, options: CreateOptions) -> int:
    """Create it, and show what was created; the exit code."""
    try:
        created = commands.create_container(options)
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


def _list_quota_rows(invocation: Invocation, plan: CreationPlan) -> list[tuple[str, Cell]]:
    """What the plan cannot know: what the user has on the other hosts of a fleet's store."""
    config = invocation.config()
    # Decision 345: without a store this host alone counts, and nobody is asked.
    if not plan.gpus or not config.fleet.etcd:
        return []
    try:
        quota = invocation.environment.read_quota(config, plan.user)
    except (Ds01Error, OSError) as error:
        return [("on other hosts", f"unknown: {error}")]
    if quota.other_hosts is None:
        return []
    return [
        ("on other hosts", format_other_hosts(quota, Wall(time.time()))),
        ("quota left", format_left(quota)),
    ]


def _show_plan(plan: CreationPlan, quota_rows: Sequence[tuple[str, Cell]]) -> None:
    rows: list[tuple[str, Cell]] = [
        ("name", plan.name),
        ("user", plan.user),
        ("framework", plan.framework),
        ("image", f"{plan.image} ({'present' if plan.is_present else 'to be pulled'})"),
        ("GPUs", list(plan.gpus) or "none"),
        *quota_rows,
        ("command", shlex.join(plan.command) or "the default of the image"),
        ("mounts", list(plan.mounts)),
        ("start", plan.start),
    ]
    show_blocks(
        [Sentence("dry run, nothing is changed; would create:"), Facts(rows)], Wall(time.time())
    )


def _show_created(created: CreatedContainer) -> None:
    gpu = f"on GPU {', '.join(created.slots)}" if created.slots else "without a GPU"
    state = "runs" if created.is_started else "is created, not started,"
    lines = [Sentence(f"{created.name} {state} {gpu}, from {created.image}", Tone.GOOD)]
    if created.is_started:
        lines.append(Sentence(f"Enter it: container-enter {created.name}"))
    else:
        lines.append(Sentence(f"Start it: container-start {created.name}"))
    show_blocks(lines, Wall(time.time()))
