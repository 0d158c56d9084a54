"""What the web page shows, as this process may read it: by the daemon's socket, else by files."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

from ds01d.adapters.files.safe_read import Signature
from ds01d.cli.base.context import Invocation
from ds01d.cli.ctl.status import collect_status
from ds01d.cli.ctl.status_document import status_document
from ds01d.cli.output.display import format_json
from ds01d.config import Config
from ds01d.config_file import DEFAULT_PATH, find_named_file
from ds01d.documents.usage_report import find_midnight
from ds01d.errors import Ds01Error
from ds01d.model.fleet import HOSTS_UNIT
from ds01d.model.primitives import Wall
from ds01d.reporting import status_file
from ds01d.reporting.published_status import is_running
from ds01d.web.content import PageContent
from ds01d.web.service_calls import ask_service

_DAYS: Final = 7
_LOG_LINES: Final = 30
_COMMAND: Final = "ds01ctl status --json"


def open_content(invocation: Invocation, config: Config) -> PageContent:
    """The content of the page for one configuration. Nothing is read yet."""
    sources = _WebSources(invocation, config)
    has_hosts = bool(config.fleet.hosts or config.fleet.hosts_file)
    return PageContent(
        read_status=sources.read_status,
        find_status_version=sources.find_status_version,
        read_activity=sources.read_activity,
        read_week=sources.read_week,
        # Without it nothing of the fleet is imported.
        read_fleet=sources.read_fleet if has_hosts else None,
        find_fleet_version=sources.find_fleet_version,
        hides_users=config.web.hide_users,
    )


class _WebSources:
    def __init__(self, invocation: Invocation, config: Config) -> None:
        self._environment, self._config = invocation.environment, config
        named = find_named_file(invocation.config_file, os.environ) or DEFAULT_PATH
        self._file = str(named.absolute())
        self._pid = 0  # of the daemon whose status was read last
        self._view_end = math.inf  # of the view of all hosts that was read last

    def read_status(self) -> dict[str, Any]:
        """The document of `ds01ctl status --json`. Raises `Ds01Error`."""
        try:
            # The daemon knows more than its files show to this user, as what was undone.
            parameters = {"command": _COMMAND, "config": self._file}
            reply = ask_service(self._config.booking_socket, "Show", parameters)
            document: dict[str, Any] = json.loads(reply["output"])
        except (Ds01Error, KeyError, ValueError):
            document = self._read_files()
        pid = document.get("daemon", {}).get("pid", 0)
        self._pid = pid if isinstance(pid, int) else 0
        return document

    def find_status_version(self) -> Hashable:
        """Changes when there may be another status: it was published, books changed, ds01d died.

        Costs the daemon nothing, so that readers who poll do not either.
        """
        folders = (self._config.daemon.state_dir, status_file.RUNTIME_DIR)
        files = [folder / status_file.NAME for folder in folders]
        stats = tuple(map(_find_file_version, [*files, self._config.books.state]))
        return stats, self._pid > 0 and is_running(self._pid)

    def read_activity(self) -> dict[str, Any]:
        """Who waits, and the last lines of the operations log. Raises `Ds01Error`."""
        parameters = {"most": _LOG_LINES}
        return ask_service(self._config.booking_socket, "Activity", parameters)

    def read_week(self) -> dict[str, Any]:
        """The use of the last days, a line for each. Raises `Ds01Error`."""
        # Today is one of the days.
        since = find_midnight(Wall(time.time()), 1 - _DAYS).timestamp()
        reply = ask_service(self._config.service.path, "Report", {"since": since, "by": "day"})
        report: dict[str, Any] = reply["report"]
        return report

    def read_fleet(self) -> dict[str, Any]:
        """All hosts, as `ds01ctl fleet publish` saw them last. Raises `ConfigError`.

        This process asks none of them: it has no ssh, and its readers may come from anywhere.
        """
        from ds01d.adapters.fleet.hosts_file import list_hosts  # noqa: PLC0415 - only with [fleet]
        from ds01d.adapters.fleet.view_file import read_view  # noqa: PLC0415 - as above
        from ds01d.cli.ctl.fleet_view import hosts_document  # noqa: PLC0415 - as above
        from ds01d.decide.fleet_hosts import age_view, find_view_end, list_unknown  # noqa: PLC0415 - as above

        names, now = list_hosts(self._config.fleet), Wall(time.time())
        try:
            view = read_view(self._config.fleet.view_file)
        except Ds01Error as error:
            # Not "no hosts": what they have is not known.
            hosts = list_unknown(names, f"{error} (is {HOSTS_UNIT} running?)")
            self._view_end = math.inf
        else:
            hosts = age_view(view, names, now)
            self._view_end = find_view_end(view)
        document: dict[str, Any] = json.loads(
            format_json("fleet-status", hosts_document(hosts, now))
        )
        return document

    def find_fleet_version(self) -> Hashable:
        """Changes when the hosts were asked again, and when that is overdue."""
        stat = _find_file_version(self._config.fleet.view_file)
        return stat, time.time() > self._view_end

    def _read_files(self) -> dict[str, Any]:
        now = Wall(time.time())
        with self._environment.open_world(self._config) as world:
            view = collect_status(self._config, world, now)
        document: dict[str, Any] = json.loads(format_json("status", status_document(view)))
        return document


def _find_file_version(path: Path) -> Hashable:
    try:
        return Signature.of(path.stat())
    except OSError:
        return None
