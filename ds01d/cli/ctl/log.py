"""`ds01ctl log`: shows the operations log of containers."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_since as since_moment
from ds01d.cli.ctl.log_view import LogRow, log_document, log_line, log_table
from ds01d.cli.output.blocks import Sentence
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.model.primitives import Wall
from ds01d.text import format_count, make_printable

POLL_S = 0.25
_FOLLOWED = 10


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Continue with new lines, until Ctrl-C.")
@click.option(
    "--user",
    metavar="USER",
    shell_complete=completion.users,
    help="Only what concerns this user.",
)
@click.option(
    "--container",
    metavar="NAME",
    shell_complete=completion.names,
    help="Only this container, with or without ._.uid.",
)
@click.option("--since", callback=since_moment, metavar="2d|TIME", help="Only from then on.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    help=f"The newest so many, 0 for all; without it all, with --follow {_FOLLOWED}.",
)
@json_option
@config_option
@click.pass_obj
def log(
    invocation: Invocation,
    *,
    follow: bool,
    user: str | None,
    container: str | None,
    since: Wall | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Show the operations log, oldest line first, rotated files included.

    An invalid line is shown as it is, unless USER or NAME is given. With --follow, --json prints
    an object a line.
    """
    from ds01d.adapters.books.log_tail import LogTail  # noqa: PLC0415 - only here

    config = invocation.config()
    query = _LogQuery(user=user, container=container, since=since)
    limit_rows = (_FOLLOWED if follow else None) if limit is None else limit or None
    with closing(LogTail(config.logs.operations)) as lines:
        matches = query.filter_rows(lines.read_past())
        rows = deque(matches, maxlen=limit_rows)
        if follow:
            _follow_log(rows, lines.read_new, query, invocation.environment.sleep, as_json=as_json)
        # A line without newline at the end is complete only now that nothing more is read.
        rows.extend(query.filter_rows(lines.read_unfinished()))
        for problem in lines.problems:
            click.echo(f"ds01ctl log: {make_printable(problem)}", err=True)
    if as_json:
        show_json(
            "log", {"entries": [log_document(row) for row in rows], "unreadable": query.unreadable}
        )
        return CONSISTENT
    now = Wall(time.time())
    show_blocks([log_table(rows)] if rows else [Sentence("no log entries")], now)
    if query.hidden:
        message = f"{format_count(query.hidden, 'line')} not shown (invalid)"
        click.echo(f"ds01ctl log: {message}", err=True)
    return CONSISTENT


def _follow_log(
    shown: Iterable[LogRow],
    read_new: Callable[[], Iterable[str]],
    query: _LogQuery,
    sleep: Callable[[float], None],
    *,
    as_json: bool,
) -> None:
    """Print the rows so far, then new ones; Ctrl-C ends it."""
    rows: Iterable[LogRow] = shown
    while True:
        for row in rows:
            click.echo(json.dumps(log_document(row), default=str) if as_json else log_line(row))
        sleep(POLL_S)
        rows = query.filter_rows(read_new())


@dataclass(kw_only=True)
class _LogQuery:
    """The filter, and how many lines were invalid."""

    user: str | None
    container: str | None
    since: Wall | None
    unreadable: int = 0
    hidden: int = 0
    _early: bool = False

    def filter_rows(self, texts: Iterable[str]) -> Iterator[LogRow]:
        """The rows that match."""
        for text in texts:
            if text.strip():
                row = LogRow.parse(text)
                if self._row_matches(row):
                    yield row

    def _row_matches(self, row: LogRow) -> bool:
        line = row.line
        if line is None:
            self.unreadable += 1
            # An invalid line has no user and no container, so a filter cannot match it.
            is_shown = self.user is None and self.container is None and not self._early
            self.hidden += not is_shown
            return is_shown
        self._early = self.since is not None and line.at < self.since
        return (
            not self._early
            and self.user in {None, line.user}
            and self.container in {None, line.container, line.container.partition("._.")[0]}
        )
