"""`ds01ctl withdraw`: ends what `ds01ctl allocate --notify` has asked for."""

from __future__ import annotations

import time

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks
from ds01d.model.primitives import Wall
from ds01d.text import format_count


@click.command()
@click.argument("user", required=False, shell_complete=completion.users)
@config_option
@click.pass_obj
def withdraw(invocation: Invocation, *, user: str | None) -> int:
    """End all requests of USER for a notice, by default your own; ds01ctl me lists them.

    Exit code: 0, also where there was none; 1 an error.
    """
    environment = invocation.environment
    caller = environment.find_caller()
    # The daemon sees root behind sudo, and would end root's.
    wanted = user or (caller.person.name if caller.root else None)
    ended = environment.withdraw_notices(invocation.config(), wanted)
    text = f"{format_count(len(ended), 'request')} for a notice withdrawn"
    show_blocks([Sentence(text)], Wall(time.time()))
    return CONSISTENT
