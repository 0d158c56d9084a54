"""The forms of `ds01ctl status`: a table, a wide one, names, JSON; once, or as it is watched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import click

from ds01d.cli.base.command import print_error
from ds01d.cli.ctl.status_document import StatusView, status_document
from ds01d.cli.ctl.status_filter import StatusFilter
from ds01d.cli.ctl.status_view import status_blocks, status_warnings
from ds01d.cli.output.blocks import Block
from ds01d.cli.output.display import format_blocks, format_json, show_blocks
from ds01d.cli.output.watching import WatchedView
from ds01d.config import Config
from ds01d.model.primitives import Wall
from ds01d.reporting.status import SlotStatus
from ds01d.text import make_printable

Form: TypeAlias = Literal["table", "wide", "name", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOutput:
    """How a status is shown, and which slots of it."""

    config: Config
    form: Form = "table"
    only: StatusFilter

    def show(self, view: StatusView, now: Wall) -> None:
        """Show it on stdout."""
        if self.form in {"table", "wide"}:
            show_blocks(self._make_blocks(view, now), now)
            return
        if self.form == "name":
            # Names alone would look as sure as ever.
            for warning in self.describe_doubt(view, now):
                print_error("ds01ctl", warning)
        for line in self._make_lines(view):
            click.echo(line)

    def format(self, view: StatusView, now: Wall) -> Iterable[str]:
        """The lines that `show` writes where stdout is no terminal."""
        if self.form in {"table", "wide"}:
            return format_blocks(self._make_blocks(view, now), now)
        return self._make_lines(view)

    def describe_doubt(self, view: StatusView, now: Wall) -> list[str]:
        """Why what is shown may be out of date, a sentence each."""
        return [warning.text for warning in status_warnings(view, self.config, now)]

    def watch(self, view: StatusView, now: Wall) -> WatchedView:
        """One look of many."""
        if self.form == "json":
            # One object a line: a reader of a stream of them splits it at line ends.
            document = status_document(self.only.apply(view))
            return WatchedView(lines=[format_json("status", document, indent=None)], key=document)
        if self.form == "name":
            lines = self._make_lines(view)
            return WatchedView(lines=[*lines, ""], key=lines)
        return WatchedView(blocks=[*self._make_blocks(view, now)], key=self._make_key(view))

    def _make_blocks(self, view: StatusView, now: Wall) -> Iterable[Block]:
        return status_blocks(view, self.config, now, wide=self.form == "wide", only=self.only)

    def _make_lines(self, view: StatusView) -> list[str]:
        shown = self.only.apply(view)
        if self.form == "name":
            return [make_printable(slot.id) for slot in shown.slots]
        return [format_json("status", status_document(shown))]

    def _make_key(self, view: StatusView) -> object:
        """What is news to a reader: neither that time goes on nor, in a narrow table, readings."""
        daemon = view.daemon
        return (
            [self._slot_key(slot) for slot in self.only.apply(view).slots],
            view.freezes,
            view.undone,
            view.books_problem,
            None if daemon is None else (daemon.findings, daemon.passes.reason, daemon.degraded),
            None if daemon is None else {name: s.reason for name, s in daemon.sources.items()},
        )

    def _slot_key(self, slot: SlotStatus) -> object:
        if self.form == "wide":
            return slot
        # Without the end of the hold: the wall clock of a moment moves by microseconds.
        holders = [(holder.container, holder.user, holder.state) for holder in slot.holders]
        return slot.id, slot.uuid, holders, slot.foreign
