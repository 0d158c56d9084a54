"""Publishes the status of a session: status.json, STATUS=, the metrics. Decides nothing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from ds01d.daemon.pass_metrics import PassMetrics
from ds01d.daemon.session import Session
from ds01d.daemon.systemd import Supervisor
from ds01d.daemon.timers import Timers
from ds01d.reporting import status_file
from ds01d.reporting.message_ids import Event
from ds01d.reporting.status import Status
from ds01d.reporting.status_summary import format_summary

PUBLISH_EVERY_S: Final = 1.0


class StatusPublisher:
    """For the worker. `is_ready`: the status of a whole sweep was published."""

    def __init__(self, timers: Timers, metrics: PassMetrics) -> None:
        self._timers, self._metrics = timers, metrics
        self._log = structlog.get_logger()
        self._published_at = -math.inf
        self.is_ready = False

    def wait_s(self) -> float:
        """Seconds until the status may be published: outside of sweeps once a second at most."""
        return max(0.0, self._published_at + PUBLISH_EVERY_S - time.monotonic())

    def build_status(self, session: Session) -> Status:
        now = session.parts.world.clock.now()
        return session.status_builder.build(self._timers.next_sweep(), now)

    def publish(self, session: Session, supervisor: Supervisor, *, sweep: bool) -> str:
        """Publish now; gives the failure, or ""."""
        self._published_at = time.monotonic()
        now = session.parts.world.clock.now()
        published = self.build_status(session)
        session.status_builder.mark_published()
        self._metrics.set_status(published)
        line = format_summary(published, now.wall)
        # A state directory that is full or read-only must not hide how ds01d is.
        failure = status_file.write_with_fallback(
            published, session.config.daemon.state_dir, _find_runtime_dir(os.environ)
        )
        if failure is not None:
            line = f"{line}; {failure}"
        # READY=1 only after a whole sweep: units started after ds01d may rely on right books.
        if sweep and not self.is_ready:
            self.is_ready = True
            supervisor.notify_ready(line)
            self._log.info(Event.DAEMON_READY, status=line)
        else:
            supervisor.notify_status(line)  # before the first sweep: why it is not ready yet
        return failure or ""


def _find_runtime_dir(environ: Mapping[str, str]) -> Path | None:
    """Where systemd lets this service keep files until it stops (RuntimeDirectory=)."""
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(folder) if folder else None
