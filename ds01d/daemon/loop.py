"""The daemon: joins worker, dirty set, timers and signals. The main thread.

Events, timers, signals and retries only mark names dirty.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from ds01d import __version__
from ds01d.config import Config
from ds01d.config_checks import describe_risks
from ds01d.daemon.dirty_set import EVERYTHING, DirtySet, Names
from ds01d.daemon.session_parts import OpenParts
from ds01d.daemon.systemd import ExitReason, Supervisor, block_signals, max_pass_s
from ds01d.daemon.timers import Timers
from ds01d.daemon.worker import Worker
from ds01d.errors import ConfigError
from ds01d.reporting import logs
from ds01d.reporting.message_ids import Event
from ds01d.service.service import Service

OpenService = Callable[[Config, Callable[[], None]], Service | None]
"""Open the booking service: `open_service(config, wake)`. Raises `ConfigError`."""


class Daemon:
    """One process, from its configuration to SIGTERM."""

    def __init__(
        self,
        *,
        load: Callable[[], Config],
        open_parts: OpenParts,
        file: Path,
        open_service: OpenService = lambda *_: None,
    ) -> None:
        self._load, self._open_parts, self._file = load, open_parts, file
        self._open_service = open_service
        self._log = structlog.get_logger()
        self._timers = Timers(self._mark)
        self._dirty = DirtySet(self._timers.schedule)

    def run(self) -> int:
        """Run until SIGTERM; gives the exit status. Raises `ConfigError` if it cannot start."""
        config = self._load()
        logs.setup_logging(level=config.logs.level)
        block_signals()
        self._log.info(
            Event.DAEMON_START, version=__version__, mode=config.daemon.mode, file=str(self._file)
        )
        self._log_risks(config)
        supervisor = Supervisor(max_pass_s(config))
        service = self._start_service(config)
        worker = Worker(self._open_parts, self._dirty, self._timers, supervisor, service)
        self._timers.start()
        threading.Thread(
            target=worker.run, args=(config,), name="ds01d-worker", daemon=True
        ).start()
        end = supervisor.run(
            reload=lambda: self._reload(worker), stop=worker.stop, dump=worker.request_dump
        )
        self._timers.stop()
        self._log.info(Event.DAEMON_STOP, reason=str(end))
        if end is ExitReason.FORCED:
            os._exit(1)  # the worker hangs in a call: an orderly exit would wait for it
        return 0 if end is ExitReason.STOPPED else 1

    def _mark(self, names: Names) -> None:
        self._dirty.mark(names)

    def _reload(self, worker: Worker) -> None:
        """Read the configuration again, then sweep. An invalid one is rejected."""
        try:
            config = self._load()
        except ConfigError as error:
            self._log.error(Event.CONFIG_REFUSED, reason=str(error))
        else:
            # Not applied here: the worker may be in the middle of a pass with the old one.
            worker.reload(config)
            self._log.info(Event.DAEMON_RELOAD, file=str(self._file))
            self._log_risks(config)
        self._dirty.mark(EVERYTHING)

    def _start_service(self, config: Config) -> Service | None:
        """Open the booking service; without it ds01d still repairs."""
        try:
            service = self._open_service(config, self._dirty.wake)
        except ConfigError as error:
            self._log.error(Event.SERVICE_FAILED, reason=str(error))
            return None
        if service is not None:
            service.start()
        return service

    def _log_risks(self, config: Config) -> None:
        for risk in describe_risks(config):
            self._log.warning(Event.CONFIG_RISK, reason=risk)
