"""`ds01ctl fleet`: what the other hosts have, over ssh; one that cannot be asked is unknown."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import (
    CONSISTENT,
    ERROR,
    ExitCodeCommand,
    ExitCodeGroup,
    config_option,
    json_option,
)
from ds01d.cli.base.context import Invocation
from ds01d.cli.ctl import fleet_view
from ds01d.cli.ctl.fleet_publish import publish
from ds01d.cli.ctl.fleet_store import forget, rejoin
from ds01d.cli.output.display import announce_on_terminal, show_blocks, show_json
from ds01d.decide.fleet_hosts import find_occurrences
from ds01d.model.fleet import FleetHost, HostState
from ds01d.model.primitives import Wall


@click.group("fleet", cls=ExitCodeGroup)
@config_option
def fleet() -> None:
    """Show what all hosts of the configuration have, over ssh.

    A host that cannot be asked is unknown: neither free nor empty. Exit code 1 if any is.
    """


fleet.add_command(publish)
fleet.add_command(rejoin)
fleet.add_command(forget)


@fleet.command("status", cls=ExitCodeCommand)
@json_option
@config_option
@click.pass_obj
def status(invocation: Invocation, *, as_json: bool) -> int:
    """Show each host: its slots, how old its status is, and since when it is unknown.

    Exit code: 0, or 1 if a host is unknown.
    """
    hosts = _ask_hosts(invocation)
    if as_json:
        show_json("fleet-status", fleet_view.hosts_document(hosts, Wall(time.time())))
    else:
        now = Wall(time.time())
        show_blocks(fleet_view.host_blocks(hosts, now), now)
    return _find_code(hosts)


@fleet.command("free", cls=ExitCodeCommand)
@click.option(
    "--profile",
    metavar="1g.10gb",
    shell_complete=completion.profiles,
    help="Slots of this MIG profile only, or physical_gpu.",
)
@json_option
@config_option
@click.pass_obj
def free(invocation: Invocation, *, profile: str | None, as_json: bool) -> int:
    """Show the slots that are known to be free, and how many hosts that leaves out.

    Exit code: 0, or 1 if a host is unknown.
    """
    hosts = _ask_hosts(invocation)
    if as_json:
        show_json("fleet-free", fleet_view.slots_document(hosts, profile))
    else:
        now = Wall(time.time())
        show_blocks(fleet_view.slot_blocks(hosts, profile, now), now)
    return _find_code(hosts)


@fleet.command("where", cls=ExitCodeCommand)
@click.argument("subject", metavar="USER|CONTAINER|UUID")
@json_option
@config_option
@click.pass_obj
def where(invocation: Invocation, *, subject: str, as_json: bool) -> int:
    """Show on which host a user, a container or a device is.

    Of an unknown host its last known status is shown: what was there may be there still.

    Exit code: 0, or 1 if a host is unknown.
    """
    hosts = _ask_hosts(invocation)
    occurrences = [*find_occurrences(hosts, subject)]
    if as_json:
        show_json("fleet-where", fleet_view.occurrences_document(hosts, occurrences))
    else:
        now = Wall(time.time())
        show_blocks(fleet_view.occurrence_blocks(hosts, occurrences, subject, now), now)
    return _find_code(hosts)


def _ask_hosts(invocation: Invocation) -> list[FleetHost]:
    opened = invocation.environment.open_fleet(invocation.config())
    with announce_on_terminal(f"asking {len(opened.hosts)} hosts"):
        # Six seconds at most, in which a terminal would else show nothing.
        return opened.view()


def _find_code(hosts: Sequence[FleetHost]) -> int:
    # For scripts: with a host unknown, what is printed is a part and not the whole.
    is_known = all(host.state is HostState.OK for host in hosts)
    return CONSISTENT if is_known else ERROR
