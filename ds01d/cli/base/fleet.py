"""The hosts of the configuration, for commands: how they are now, and commands run on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ds01d.adapters.fleet.hosts_file import list_hosts
from ds01d.adapters.fleet.last_words import LastWords, find_cache_folder
from ds01d.adapters.fleet.look import FleetLook
from ds01d.adapters.fleet.remote_command import RemoteRun
from ds01d.config import Config
from ds01d.decide.fleet_hosts import StatusTimes, judge_host, update_last_word
from ds01d.errors import ConfigError
from ds01d.model.fleet import (
    FleetHost,
    HostAnswer,
    HostFailure,
    HostName,
    LastWord,
    RemoteEnd,
    RemoteResult,
)
from ds01d.model.primitives import Wall
from ds01d.reporting.published_status import find_slack


class Fleet:
    """The hosts that `[fleet]` names. Raises `ConfigError` where it names none."""

    def __init__(self, config: Config) -> None:
        self.hosts = list_hosts(config.fleet)
        if not self.hosts:
            raise ConfigError("no other hosts are configured: list them in fleet.hosts")
        # As on this host.
        self._times = StatusTimes(
            interval_s=config.daemon.sweep_interval_s, slack_s=find_slack(config)
        )
        self._look = FleetLook(config.daemon.state_dir, os.environ)
        self._last_words = LastWords(find_cache_folder(os.environ))

    def view(self) -> list[FleetHost]:
        """How the hosts are now, in the order of the configuration."""
        # Without the status: those of all hosts at once take much memory, and few are needed.
        before = {name: replace(self._last_words.load(name), status=None) for name in self.hosts}
        # Decision 293: those that were unknown last, so that they delay nobody else.
        order = sorted(self.hosts, key=lambda name: before[name].unknown_since is not None)
        answers = self._look.ask_hosts(order)
        now = Wall(time.time())
        view = [
            judge_host(name, answers[name], word, self._times, now)
            for name, word in self._recall_status(answers, before)
        ]
        self._last_words.keep({host.name: update_last_word(host) for host in view})
        return view

    def _recall_status(
        self,
        answers: Mapping[HostName, HostAnswer | HostFailure],
        before: Mapping[HostName, LastWord],
    ) -> Iterator[tuple[HostName, LastWord]]:
        """What was known of each host, with its last known status where that is shown."""
        for name in self.hosts:
            is_shown = isinstance(answers[name], HostFailure)
            yield name, self._last_words.load(name) if is_shown else before[name]

    def run_command(
        self,
        host: HostName,
        words: Sequence[str],
        show: Callable[[str], None],
        limit_s: float | None = None,
    ) -> RemoteResult:
        """Run a command on a host. Ctrl-C ends the connection: then its end is uncertain too."""
        run = RemoteRun(host, words, show)
        try:
            return run.run(limit_s)
        except KeyboardInterrupt:
            if not run.is_begun:
                raise
            return RemoteResult(end=RemoteEnd.UNCERTAIN, reason="interrupted here")
