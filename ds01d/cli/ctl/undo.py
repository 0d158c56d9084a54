"""`ds01ctl undo`: reverts changes of the books."""

from __future__ import annotations

import click

from ds01d.cli.base import completion
from ds01d.cli.base.caller import caller_name
from ds01d.cli.base.command import CONSISTENT, ERROR, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.output.blocks import Document, Sentence, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.decide.undo_choice import Reversal
from ds01d.model.primitives import Wall
from ds01d.reconcile.undo import Undoer, UndoResult
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
    if not dry_run:
        invocation.environment.make_state_dir(config)
    with invocation.environment.open_world(config) as world:
        undoer, by = Undoer(world, config), caller_name()
        result = undoer.plan(entry, by) if dry_run else undoer.undo(entry, by)
        now = world.clock.now().wall
    if as_json:
        show_json(_undo_document(entry, result))
    else:
        _show_undo(entry, result, now)
    return CONSISTENT if result.refused is None and (dry_run or not result.warnings) else ERROR


def _undo_document(entry: str, result: UndoResult) -> dict[str, Document]:
    refused, reversal = result.refused, result.reversal
    return {
        "id": result.entry or None,
        "asked": entry,
        "undone": bool(result.entry),
        "undoes": [undone.id for undone in reversal.undoes] if reversal is not None else [],
        "does": _describe_changes(reversal) if reversal is not None else [],
        "refused": None if refused is None else {"why": refused.why, "reason": refused.reason},
        "troubles": result.warnings,
    }


def _show_undo(entry: str, result: UndoResult, now: Wall) -> None:
    if result.refused is not None:
        raise click.ClickException(f"{entry} is not undone: {result.refused.reason}")
    if result.reversal is None:
        return
    ids = ", ".join(undone.id for undone in result.reversal.undoes)
    head = f"Undone: {ids}, by entry {result.entry}" if result.entry else f"Would undo {ids}"
    lines = [
        Sentence(head, Tone.GOOD),
        *(Sentence(f"  {change}") for change in _describe_changes(result.reversal)),
    ]
    show_blocks(lines, now)
    for warning in result.warnings:
        note = "; the next pass goes on" if result.entry else ""
        click.echo(f"ds01ctl: {make_printable(warning)}{note}", err=True)


def _describe_changes(reversal: Reversal) -> list[str]:
    """What is restored, a line each."""
    changes = [f"{name} is booked in slot {slot} again" for name, slot in sorted(reversal.given)]
    changes += [f"{name} leaves slot {slot}" for name, slot in sorted(reversal.taken)]
    booked = {slot for _, slot in reversal.given | reversal.taken}
    changes += [
        f"slot {slot} is as it was" if before is not None else f"slot {slot} goes"
        for slot, before in sorted(reversal.after.slots.items())
        if slot not in booked
    ]
    if reversal.broken:
        changes.append(
            "the state is the broken file again: the allocator refuses until it is thawed"
        )
    changes += [
        f"the metadata of {name} is as it was" if text is not None else f"{name} has no metadata"
        for name, (text, _) in sorted(reversal.records.items())
    ]
    return changes
