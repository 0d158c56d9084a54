"""Reads the status that the daemon published, and checks whether it is up to date."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ds01d.config import Config
from ds01d.model.primitives import Source, Wall
from ds01d.model.usage import PublishedUse
from ds01d.reporting import status_file
from ds01d.reporting.status import Status
from ds01d.text import format_span

SLACK_S = 30.0
LATE_S = 5.0


def read_published_status(
    config: Config, now: Wall, runtime_dir: Path = status_file.RUNTIME_DIR
) -> tuple[Status | None, str]:
    """The last published status, and why it is out of date ("" if it is not)."""
    try:
        last = _read_latest(config.daemon.state_dir, runtime_dir)
    except FileNotFoundError:
        return None, f"no status in {config.daemon.state_dir}"
    except (OSError, ValueError) as error:
        return None, f"cannot read its status: {error}"
    if now > _next_expected_at(last, config) + find_slack(config):
        return last, f"last status {format_span(now - last.written_at)} ago"
    if not is_running(last.pid):
        return (
            last,
            f"process {last.pid} has ended, last status {format_span(now - last.written_at)} ago",
        )
    return last, ""


def find_slack(config: Config) -> float:
    """How many seconds a status may be overdue and still counts."""
    # A pass may rightly take that long, and publishes only at its end.
    return config.docker.timeout_s + config.gpu.timeout_s + config.daemon.sweep_jitter_s + SLACK_S


def describe_delay(last: Status, config: Config, now: Wall) -> str:
    """How much a status that still counts is overdue, since a pass takes long; "" if it is not."""
    late_s = now - _next_expected_at(last, config) - config.daemon.sweep_jitter_s
    if late_s <= LATE_S:
        return ""
    return (
        f"this is {format_span(now - last.written_at)} old, a new status is"
        f" {format_span(late_s)} overdue: a pass takes long or hangs"
    )


def _next_expected_at(last: Status, config: Config) -> float:
    return max(last.next_sweep or 0.0, last.written_at + config.daemon.sweep_interval_s)


def _read_latest(state_dir: Path, runtime_dir: Path) -> Status:
    """The newer status of both folders. Raises as `read_status` does for `state_dir`."""
    # Decision 100: the runtime folder has it while the state folder cannot be written.
    try:
        fallback = status_file.read_status(runtime_dir)
    except (OSError, ValueError):
        return status_file.read_status(state_dir)
    # /run/ds01d is shared by all instances of a host, tests and demos included.
    if fallback.state_dir != str(state_dir):
        return status_file.read_status(state_dir)  # of another ds01d
    try:
        return max(
            status_file.read_status(state_dir), fallback, key=lambda candidate: candidate.written_at
        )
    except (OSError, ValueError):
        return fallback


def is_running(pid: int) -> bool:
    """Whether there is such a process, of any user."""
    try:
        # Signal 0 asks only whether the process exists.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's process
    return True


class PublishedStatus:
    """The daemon's status, for the allocator."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def read_use(self) -> PublishedUse | None:
        """Who has or uses which devices, and why that may be outdated; None: nothing published."""
        last, outdated = read_published_status(self._config, Wall(time.time()))
        return PublishedUse(outdated=outdated) if last is None else build_use(last, outdated)


def build_use(last: Status, outdated: str = "") -> PublishedUse:
    """Who has or uses which devices; `outdated`: why the status does not count."""
    # Decision 97: a status of failing passes is fresh, and yet from the last good pass.
    if not outdated and last.passes.failing_since is not None:
        outdated = f"passes of ds01d fail: {last.passes.reason}"
    docker = last.sources.get(Source.DOCKER)
    if not outdated and (docker is None or not docker.ok):
        outdated = f"ds01d cannot reach Docker: {docker.reason if docker else 'not asked yet'}"
    return PublishedUse(
        uses=last.uses,
        without_devices=frozenset(last.without_devices),
        outdated=outdated,
        inventory=last.inventory,
    )
