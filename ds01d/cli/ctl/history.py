"""`ds01ctl history`: shows the changes of the books."""

from __future__ import annotations

import time

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_since as since_moment
from ds01d.cli.ctl.history_view import history_table
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.documents.history import build_entry_document, read_rows, select_rows
from ds01d.model.primitives import Wall
from ds01d.text import format_count


@click.command()
@click.argument("name", required=False, shell_complete=completion.subjects)
@click.option("--since", callback=since_moment, metavar="2d|TIME", help="Only changes since then.")
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
    """Show changes of the books, oldest first; with NAME, those of a container or a slot alone.

    NAME may also be the short name of a container.

    An "open" entry was begun by a pass that was killed; the next pass finishes or drops it.
    """
    config = invocation.config()
    rows = [*read_rows(invocation.environment.read_history(config))]
    if name is not None:
        uid = invocation.environment.find_caller().person.uid
        rows = select_rows(rows, name, uid)
    matches = [row for row in rows if since is None or row.at >= since]
    newest = [*map(build_entry_document, matches[-limit:] if limit else matches)]
    if as_json:
        show_json("history", {"entries": newest, "older": len(matches) - len(newest)})
        return CONSISTENT
    now = Wall(time.time())
    if newest:
        show_blocks([history_table(newest, verbose=verbose)], now)
    else:
        message = "no changes" if name is None else f'no changes of "{name}"'
        show_blocks([Sentence(message if since is None else f"{message} since then")], now)
    if len(matches) > len(newest):
        older = format_count(len(matches) - len(newest), "older change")
        click.echo(f"{older} not shown: --limit 0 shows all", err=True)
    return CONSISTENT
