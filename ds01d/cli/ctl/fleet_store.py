"""`ds01ctl fleet rejoin` and `forget`: what an admin does about the store that all hosts share."""

from __future__ import annotations

import click

from ds01d.cli.base.command import CONSISTENT, ExitCodeCommand, config_option
from ds01d.cli.base.context import Invocation
from ds01d.errors import Refused
from ds01d.service.operations_client import RemoteOperations
from ds01d.text import make_printable


@click.command("rejoin", cls=ExitCodeCommand)
@click.option("--as-new", is_flag=True, help="Take part as another host than before.")
@config_option
@click.pass_obj
def rejoin(invocation: Invocation, *, as_new: bool) -> int:
    """Have this host take part again, after it was fenced.

    A host is fenced if the store of the fleet does not have it as ds01d left it: it was forgotten,
    put back from an image, or is a copy of another one. A copy takes part as a new host by itself.
    """
    done = require_store(invocation).rejoin_fleet(as_new=as_new)
    click.echo(f"Rejoined: {make_printable(done)}")
    return CONSISTENT


@click.command("forget", cls=ExitCodeCommand)
@click.argument("host")
@click.option("--yes", is_flag=True, help="Confirm that the host is gone for good.")
@config_option
@click.pass_obj
def forget(invocation: Invocation, *, host: str, yes: bool) -> int:
    """Have the store of the fleet forget a host, by its name or its ID there.

    What it had is not counted any more, also if it still runs. It is fenced if it comes back.
    """
    operations = require_store(invocation)
    if not yes:
        raise click.UsageError(
            f"what {host} has would not be counted any more, even if it still runs:"
            " add --yes if it is gone for good"
        )
    click.echo(f"Forgotten: {make_printable(operations.forget_host(host))}")
    return CONSISTENT


def require_store(invocation: Invocation) -> RemoteOperations:
    """The daemon, if its hosts share a store. Raises `Ds01Error`."""
    config = invocation.config()
    if not config.fleet.etcd:
        raise Refused("the hosts share no store: fleet.etcd is empty")
    # Only the daemon knows the store, its certificates and its password.
    return invocation.environment.require_operations(config)
