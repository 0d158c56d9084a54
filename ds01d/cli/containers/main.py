"""`container-create` and its siblings, also available as `ds01ctl container create` and so on.

Reads arguments and shows results; the work is done in `ds01d.containers`.
"""

from __future__ import annotations

import time
from pathlib import Path

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
from ds01d.cli.base.fleet_options import HostOptions, host_options
from ds01d.cli.containers import creation, list_view
from ds01d.cli.containers.changes import remove, start, stop
from ds01d.cli.containers.direct import open_commands
from ds01d.cli.containers.enter import enter, logs
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.containers.order import CreateOptions
from ds01d.model.primitives import Wall

_HELP = {"help_option_names": ["-h", "--help"]}


@click.command("container-create", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.argument("name", required=False)
@click.argument("framework", required=False, shell_complete=completion.frameworks)
@click.argument("framework_version", required=False, metavar="[VERSION]")
@click.option("--guided", is_flag=True, help="Ask for everything, and explain it.")
@click.option(
    "--gpus",
    "--num-gpus",
    "gpus",
    type=click.IntRange(0, 64),
    metavar="N",
    help="How many slots [1].",
)
@click.option("--cpu-only", is_flag=True, help="No slot, and no GPU to be seen.")
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
@click.option(
    "-w", "--workspace", metavar="DIR", help="Mount this at /workspace [the catalogue's]."
)
@click.option("-d", "--data", metavar="DIR", help="Mount this at /data, to be read only.")
@click.option("--dry-run", is_flag=True, help="Show what would be created; book nothing.")
@click.option("--no-start", is_flag=True, help="Create it, and do not start it.")
@click.option("--wait", is_flag=True, help="Wait for a slot; Ctrl-C ends that.")
@host_options
@json_option
@click.pass_obj
def create(
    invocation: Invocation,
    *,
    name: str | None,
    framework: str | None,
    framework_version: str | None,
    guided: bool,
    gpus: int | None,
    cpu_only: bool,
    workspace: str | None,
    data: str | None,
    slots: tuple[str, ...],
    image: str | None,
    architecture: str | None,
    dry_run: bool,
    no_start: bool,
    wait: bool,
    any_host: bool,
    hosts: tuple[str, ...],
    without: tuple[str, ...],
    as_json: bool,
) -> int:
    """Create a container of FRAMEWORK, called NAME, with a GPU of its own, and start it.

    FRAMEWORK is one of the catalogue: "pytorch" for the newest, "pytorch 2.5.0" or "pytorch-2.5.0";
    or an image, like "me/my-image:1". Whatever fails on the way, nothing is left of it.
    On another host it is created as this command does there, over ssh.

    Exit code: 0 created, 1 not created, 2 --guided without a terminal, 130 or 143 interrupted.
    """
    if cpu_only and (gpus or slots):
        raise click.UsageError("--cpu-only and a GPU contradict")
    options = CreateOptions(
        name=name,
        framework=framework if framework_version is None else f"{framework}-{framework_version}",
        workspace=None if workspace is None else str(Path.cwd() / workspace),
        data=None if data is None else str(Path.cwd() / data),
        gpus=0 if cpu_only else gpus,
        slots=slots,
        image=image,
        architecture=architecture,
        dry_run=dry_run,
        start=not no_start,
        wait=wait,
    )
    chosen = HostOptions(any_host=any_host, hosts=hosts, without=without)
    if not chosen.is_given:
        return creation.run_create(invocation, options, guided=guided, as_json=as_json)
    if guided:
        raise click.UsageError("--guided asks for a container of this host")
    from ds01d.cli.containers.fleet_create import create_on_fleet  # noqa: PLC0415 - rarely used

    return create_on_fleet(invocation, options, chosen, as_json=as_json)


@click.command("container-list", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.option("-a", "--all", "every", is_flag=True, help="Also those that do not run.")
@click.option("--guided", is_flag=True, help="Explain what is shown.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, every: bool, guided: bool, as_json: bool) -> int:
    """Show your containers with the GPUs that are booked for them; root sees everybody's."""
    with open_commands(invocation) as commands:
        containers = commands.list_containers(with_stopped=every)
    if as_json:
        show_json("container-list", list_view.list_document(containers))
    else:
        now = Wall(time.time())
        if guided:
            show_blocks([Sentence(list_view.EXPLANATION)], now)
        show_blocks(list_view.list_blocks(containers, with_stopped=every), now)
    return ERROR if containers.failures else 0


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
