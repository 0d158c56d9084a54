"""`ds01-dashboard`: GPUs, slots, users, the daemon and the last operations, in one view."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import closing

import click

from ds01d.adapters.books.log_tail import LogTail
from ds01d.cli.base.command import CONSISTENT, ERROR, ExitCodeCommand, common_options, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_duration
from ds01d.cli.base.reload_daemon import force_sweep
from ds01d.cli.ctl.log_view import LogRow
from ds01d.cli.ctl.status import collect_status
from ds01d.cli.dashboard.view import (
    DashboardState,
    dashboard_blocks,
    dashboard_document,
    doubt_sentences,
)
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.cli.output.streams import is_screen
from ds01d.config import Config
from ds01d.errors import Ds01Error
from ds01d.model.primitives import Wall
from ds01d.reconcile.ports import World

_OPERATIONS = 15


@click.command(
    "ds01-dashboard", cls=ExitCodeCommand, context_settings={"help_option_names": ["-h", "--help"]}
)
@common_options
@click.option("--once", is_flag=True, help="Show it once, and end.")
@click.option(
    "--interval",
    callback=parse_duration,
    default="2s",
    show_default=True,
    metavar="2s",
    help="Refresh interval.",
)
@click.option(
    "--mouse/--no-mouse",
    default=True,
    help="Let clicks and the wheel work; without, the terminal selects text as usual.",
)
@json_option
@click.pass_obj
def main(invocation: Invocation, *, once: bool, interval: float, mouse: bool, as_json: bool) -> int:
    """Show GPUs, slots and their holders, users, the daemon, and the last operations.

    On a terminal the view updates, with its keys at the bottom: Enter shows details, / filters, o
    sorts, s has the daemon sweep, a shows all hosts of [fleet], q ends it. Elsewhere, and with
    --once or --json, it is shown once. Shows what the daemon published, or the books alone if it is
    not running. Exit code: 0, or 1 if the books cannot be read either.
    """
    config = invocation.config()
    live = not (once or as_json) and sys.stdin.isatty() and is_screen(sys.stdout)
    with (
        invocation.environment.open_world(config) as world,
        closing(Poller(config, world)) as poller,
    ):
        if live:
            return _run_live(invocation, poller, interval, mouse=mouse)
        state = poller.read_state()
    if as_json:
        show_json("dashboard", dashboard_document(state))
    else:
        show_blocks(dashboard_blocks(state, config), state.now)
    return ERROR if state.status.books_problem else CONSISTENT


class Poller:
    """Looks at the host, again and again; reads of the operations log only what is new."""

    def __init__(self, config: Config, world: World) -> None:
        self.config = config
        self._world = world
        self._lines = LogTail(config.logs.operations)
        self._operations: deque[LogRow] = deque(maxlen=_OPERATIONS)
        self._begun = False

    def read_state(self) -> DashboardState:
        """What there is to see now."""
        problem = ""
        try:
            # The whole log only once: it may have years of rotated files.
            texts = self._lines.read_new() if self._begun else self._lines.read_past()
            self._operations.extend(LogRow.parse(text) for text in texts if text.strip())
            self._begun = True
        except Ds01Error as error:
            problem = str(error)
        now = Wall(time.time())
        status = collect_status(self.config, self._world, now)
        operations = tuple(self._operations)
        return DashboardState(status=status, operations=operations, log_problem=problem, now=now)

    def sweep(self) -> str:
        """Have the daemon sweep; what came of it, in words."""
        return force_sweep(self.config, Wall(time.time()))

    def close(self) -> None:
        self._lines.close()


def _run_live(invocation: Invocation, poller: Poller, interval: float, *, mouse: bool) -> int:
    config = poller.config
    try:
        from ds01d.cli.dashboard.hosts import HostPoller  # noqa: PLC0415 - for the live view alone
        from ds01d.cli.dashboard.live.app import Dashboard  # noqa: PLC0415 - an extra, and slow to load
    # textual is an optional extra; any other missing module is a bug.
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise Ds01Error(
            "the live view needs the extra ds01d[dashboard] (pip install 'ds01d[dashboard]');"
            " --once and --json do without"
        ) from error
    hosts = None
    if config.fleet.hosts or config.fleet.hosts_file:
        hosts = HostPoller(lambda: invocation.environment.open_fleet(config).view())
    app = Dashboard(
        look=poller.read_state,
        warn=lambda state: doubt_sentences(state, poller.config),
        sweep=poller.sweep,
        interval_s=interval,
        hosts=hosts,
    )
    # With the mouse reported to us the terminal cannot select text, which some want more.
    app.run(mouse=mouse)
    return app.return_code or CONSISTENT


if __name__ == "__main__":
    main()
