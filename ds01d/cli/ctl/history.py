"""`ds01ctl history`: what was done to the books."""

from __future__ import annotations

import time

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_since as since_moment
from ds01d.cli.ctl.history_view import history_table, read_rows, row_document
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.cli.output.text import format_count
from ds01d.model.primitives import Wall


@click.command()
@click.argument("name", required=False, shell_complete=completion.subjects)
@click.option(
    "--since", callback=since_moment, metavar="2d|TIME", help="Only what was done since then."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="The newest so many; 0 for all.",
)
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Show the evidence for each entry.")
@config_option
@click.pass_obj
def history(
    invocation: Invocation,
    *,
    name: str | None,
    since: Wall | None,
    limit: int,
    as_json: bool,
    verbose: bool,
) -> int:
    """Show what was done to the books, oldest first; of NAME, a container or a slot, alone.

    An entry that is "open" was begun by a pass that was killed: the next pass has looked after it.
    """
    config = invocation.config()
    found = [
        one
        for one in read_rows(invocation.environment.history(config))
        if (name is None or one.about(name)) and (since is None or one.at >= since)
    ]
    newest = found[-limit:] if limit else found
    if as_json:
        show_json(
            {"entries": [row_document(one) for one in newest], "older": len(found) - len(newest)}
        )
        return CONSISTENT
    now = Wall(time.time())
    if newest:
        show_blocks([history_table(newest, verbose=verbose)], now)
    else:
        what = "Nothing was done" if name is None else f"Nothing was done to {name}"
        show_blocks([Sentence(what if since is None else f"{what} since then")], now)
    if len(found) > len(newest):
        older = format_count(len(found) - len(newest), "older change")
        click.echo(f"{older} not shown: --limit 0 shows all", err=True)
    return CONSISTENT
