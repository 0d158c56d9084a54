"""`ds01ctl freeze` and `thaw`: stop repairs, and allow them again."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_duration
from ds01d.cli.ctl.fleet_store import require_store
from ds01d.cli.ctl.operations import open_operations
from ds01d.decide.freezes import LONGEST_REASON, describe_freeze, is_valid_reason
from ds01d.text import make_printable


@click.command()
@click.argument(
    "subject", metavar="[NAME|SLOT]", required=False, shell_complete=completion.subjects
)
@click.option(
    "--for", "seconds", callback=parse_duration, metavar="2h", help="Thaw automatically after it."
)
@click.option("--reason", default="", help="Why, for others to read.")
@config_option
@click.pass_obj
def freeze(
    invocation: Invocation, *, subject: str | None, seconds: float | None, reason: str
) -> int:
    """Stop repairs until thawed: of everything, or of one container or slot.

    Applies to the daemon and to reconcile, not to the allocator.
    """
    config = invocation.config()
    reason = reason.strip()
    if not is_valid_reason(reason):
        raise click.UsageError(
            f"--reason: expected one line of at most {LONGEST_REASON} characters"
        )
    with open_operations(invocation, config, change="freeze repairs") as operations:
        frozen = operations.freeze_subject(subject, seconds, reason)
    _print_warnings(frozen.warnings)
    new = frozen.freeze
    click.echo(f"Frozen: {make_printable(describe_freeze(new, new.since))}")
    return CONSISTENT


@click.command()
@click.argument(
    "subject", metavar="[NAME|SLOT]", required=False, shell_complete=completion.subjects
)
@click.option("--engine", is_flag=True, help="Trust the Docker engine that answers now.")
@click.option(
    "--fleet", "store", is_flag=True, help="Trust the store of the fleet that answers now."
)
@config_option
@click.pass_obj
def thaw(invocation: Invocation, *, subject: str | None, engine: bool, store: bool) -> int:
    """End the freeze of everything, or of one container or slot; or allow what an undo blocks.

    What `undo` took back is not repaired again until its container, its slot or the ID of the undo
    is thawed. With --engine: trust the Docker engine in use now instead of the previous one; until
    then nothing is released. With --fleet: trust a store of the fleet that was put back, before all
    hosts have reported what they have; until then nothing is reserved.
    """
    if store:
        return _thaw_store(invocation, subject, engine=engine)
    if engine and subject is not None:
        raise click.UsageError("--engine applies to the whole host: leave out the name")
    config = invocation.config()
    with open_operations(invocation, config, change="thaw repairs") as operations:
        thawed = operations.thaw_subject(subject, engine=engine)
    _print_warnings(thawed.warnings)
    for line in thawed.lines:
        click.echo(f"{'Trusted' if engine else 'Thawed'}: {make_printable(line)}")
    return CONSISTENT


def _thaw_store(invocation: Invocation, subject: str | None, *, engine: bool) -> int:
    if engine or subject is not None:
        raise click.UsageError("--fleet applies to the store of the fleet alone")
    click.echo(f"Trusted: {make_printable(require_store(invocation).thaw_fleet())}")
    return CONSISTENT


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"ds01ctl: {make_printable(warning)}", err=True)
