"""`ds01ctl fleet publish`: asks all hosts again and again, for processes that cannot.

The web page has no ssh, no key and no network. This process has them, listens to nobody, and hands
over one file (decision 325).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from ds01d.adapters.fleet.view_file import write_view
from ds01d.cli.base.command import CONSISTENT, ERROR, ExitCodeCommand, config_option, print_error
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_duration
from ds01d.config import Config
from ds01d.errors import ConfigError, Ds01Error
from ds01d.model.fleet import FleetHost, FleetView, HostName, HostState
from ds01d.model.primitives import Wall
from ds01d.text import format_count, make_printable

# All hosts have five seconds to answer: less would ask without a pause. A view counts for twice its
# time, so one of many minutes would show late that a host is gone.
_LEAST_S: Final = 5.0
_MOST_S: Final = 300.0


@click.command("publish", cls=ExitCodeCommand)
@click.option(
    "--every",
    default="30s",
    show_default=True,
    metavar="30s",
    callback=parse_duration,
    help="How often all hosts are asked, 5s to 5m.",
)
@click.option("--once", is_flag=True, help="Ask once, and end.")
@config_option
@click.pass_obj
def publish(invocation: Invocation, *, every: float, once: bool) -> int:
    """Ask all hosts again and again, and keep the result in fleet.view_file.

    For the web page, which asks no host itself. The service ds01d-hosts runs it. Hosts that become
    unknown, or known again, are written to stderr. Exit code of --once: 0, or 1 if nothing could be
    written.
    """
    if not _LEAST_S <= every <= _MOST_S:
        raise click.BadParameter("expected 5s to 5m", param_hint="--every")
    try:
        config = invocation.config()
        invocation.environment.open_fleet(config)  # whether it names any
    except ConfigError as error:
        # decision 44: 78 keeps systemd from restarting a service that cannot start.
        print_error("ds01ctl", str(error))
        return os.EX_CONFIG
    publisher = FleetPublisher(
        # Opened for each look: the file of host names may have changed.
        look=lambda: invocation.environment.open_fleet(config).view(),
        path=config.fleet.view_file,
        every_s=every,
    )
    if once:
        return CONSISTENT if publisher.publish() else ERROR
    return _publish_until_stopped(publisher, config)


class FleetPublisher:
    """Asks all hosts by `look`, and writes the view to `path`.

    What has changed since the last time goes to stderr, a line for each host.
    """

    def __init__(
        self, *, look: Callable[[], Sequence[FleetHost]], path: Path, every_s: float
    ) -> None:
        self._look, self._path = look, path
        self.every_s = every_s
        self._reasons: dict[HostName, str] = {}
        self._problem = ""
        self.summary = ""

    def publish(self) -> bool:
        """Ask once; whether the view could be written. The file before it stays where not."""
        try:
            hosts = tuple(self._look())
            viewed_at = Wall(time.time())
            view = FleetView(viewed_at=viewed_at, every_s=self.every_s, hosts=hosts)
            write_view(self._path, view)
        # A hosts file that is written just now, a full disk: readers see that the view gets old.
        except (Ds01Error, OSError) as error:
            self._report_problem(str(error))
            return False
        self._report_problem("")
        self._report_changes(hosts)
        return True

    def _report_problem(self, problem: str) -> None:
        if problem and problem != self._problem:
            print_error("ds01ctl", f"the hosts are not published: {problem}")
        if problem:
            self.summary = problem
        self._problem = problem

    def _report_changes(self, hosts: Sequence[FleetHost]) -> None:
        # By state, not by reason: the age in a reason changes with each look.
        for host in hosts:
            before = self._reasons.get(host.name)
            if host.state is HostState.OK:
                if before:
                    click.echo(make_printable(f"{host.name} is known again"), err=True)
            elif not before:
                click.echo(make_printable(f"{host.name} is unknown: {host.reason}"), err=True)
        self._reasons = {host.name: host.reason for host in hosts}
        unknown = sum(bool(reason) for reason in self._reasons.values())
        count = format_count(len(hosts) - unknown, "host")
        self.summary = f"{count} known, {unknown} unknown"


def _publish_until_stopped(publisher: FleetPublisher, config: Config) -> int:
    from ds01d.daemon.notify_socket import Notifier, open_notify_socket  # noqa: PLC0415 - not for status

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    notifier = Notifier(open_notify_socket())
    click.echo(f"publishing {config.fleet.view_file}", err=True)
    while not stopped.is_set():
        began = time.monotonic()
        publisher.publish()
        # Ready also where nothing could be written: a disk that is full now may have room later.
        notifier.notify("READY=1", f"STATUS={publisher.summary}", "WATCHDOG=1")
        stopped.wait(max(0.0, began + publisher.every_s - time.monotonic()))
    return CONSISTENT
