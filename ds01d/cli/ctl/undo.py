"""`ds01ctl undo`: reverts changes of the books."""

from __future__ import annotations

import time

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, ERROR, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.ctl.operations import open_operations
from ds01d.cli.output.blocks import Sentence, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.documents.undo import UndoDocument
from ds01d.model.primitives import Wall
from ds01d.text import make_printable


@click.command()
@click.argument("entry", metavar="ID", shell_complete=completion.entries)
@click.option("--dry-run", is_flag=True, help="Only show what would be undone.")
@json_option
@config_option
@click.pass_obj
def undo(invocation: Invocation, *, entry: str, dry_run: bool, as_json: bool) -> int:
    """Undo a change of the books: restore exactly what was there before.

    ID is that of an entry of `ds01ctl history`; changes made together with it are undone too. An
    undo is refused, with the reason, if a newer change contradicts it. What was undone is not
    repaired again until it is thawed (`ds01ctl thaw NAME`) or its container or slot changes. An
    undo is an entry itself: undo that to redo it. It does not restrict the allocator.
    """
    config = invocation.config()
    # A dry run must work for users who may not write `state_dir`.
    change = "" if dry_run else "undo changes"
    with open_operations(invocation, config, change=change) as operations:
        result = operations.undo_entry(entry, dry_run=dry_run)
    if as_json:
        show_json("undo", result)
    else:
        _show_undo(result)
    return CONSISTENT if result.refused is None and (dry_run or not result.troubles) else ERROR


def _show_undo(result: UndoDocument) -> None:
    if result.refused is not None:
        raise click.ClickException(f"{result.asked} is not undone: {result.refused.reason}")
    ids = ", ".join(result.undoes)
    head = f"Undone: {ids}, by entry {result.id}" if result.undone else f"Would undo {ids}"
    lines = [Sentence(head, Tone.GOOD), *(Sentence(f"  {change}") for change in result.does)]
    show_blocks(lines, Wall(time.time()))
    for warning in result.troubles:
        note = "; the next pass goes on" if result.undone else ""
        click.echo(f"ds01ctl: {make_printable(warning)}{note}", err=True)
