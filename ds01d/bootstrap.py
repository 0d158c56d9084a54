"""Joins the parts that every command and the daemon need: configuration and adapters.

Holds no logic of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ds01d import config_file
from ds01d.adapters.books.limits import LimitsFile
from ds01d.adapters.books.operations_log import OperationsLog
from ds01d.adapters.docker.cached_running import CachedRunning
from ds01d.adapters.docker.commands import DockerCommands
from ds01d.adapters.docker.engine import DockerEngine, OnChange, OnEvent
from ds01d.adapters.docker.sessions import DockerSessions
from ds01d.adapters.host.access_report import AccessReport
from ds01d.adapters.host.clocks import HostClock, read_boottime
from ds01d.adapters.host.device_cgroups import DeviceCgroups
from ds01d.adapters.host.followed_processes import FollowedProcesses
from ds01d.adapters.host.owners_file import OwnersFile
from ds01d.adapters.host.reserving_processes import ReservingProcesses
from ds01d.adapters.host.run_as_owner import act_as_owner
from ds01d.adapters.nvml.sampler import NvmlSampler
from ds01d.adapters.nvml.xid_journal import KernelFaults
from ds01d.adapters.state_dir import StateDirectory
from ds01d.bootstrap_books import SYSLOG_PATIENCE_S, BooksOnly
from ds01d.config import Config
from ds01d.errors import ConfigError
from ds01d.reconcile.docker_books import with_current_books
from ds01d.reconcile.ports import World
from ds01d.reporting.published_status import PublishedStatus

if TYPE_CHECKING:
    from ds01d.containers.context import ContainerServices

PASS_LOCK_TIMEOUT_S = 30.0
_CONTAINERS = "containers.json"
_LIMITS = "limits.json"


def load_config(path: Path | None) -> Config:
    """The configuration, checked whole. Raises `ConfigError`."""
    config = config_file.load_config(path, os.environ)
    if config.daemon.sweep_cron:
        # A command starts in half the time without APScheduler.
        from ds01d.daemon.timers import validate_cron  # noqa: PLC0415

        try:
            validate_cron(config.daemon.sweep_cron)
        except ConfigError as error:
            raise ConfigError(f"daemon.sweep_cron: {error}") from error
    return config


def state_dir(config: Config) -> StateDirectory:
    """ds01d's own directory."""
    return StateDirectory(config.daemon.state_dir, PASS_LOCK_TIMEOUT_S)


def act_as_service(config: Config) -> None:
    """Have root act as the service's user from here on. Raises `NotPermitted`."""
    act_as_owner(config.daemon.state_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The adapters of one configuration, and what ends them."""

    world: World
    engine: DockerEngine
    limits: LimitsFile
    operations: OperationsLog
    state_dir: StateDirectory
    close: Callable[[], None]

    def load_cache(self) -> None:
        """What Docker showed the process before: not every container has to be inspected again.

        And the last good limits: today's file may be broken.
        """
        self.engine.import_cache(self.state_dir.load(_CONTAINERS))
        self.limits.import_copy(self.state_dir.load(_LIMITS))

    def save_cache(self) -> None:
        """Keep what Docker showed and the limits, for the next process. Raises `WriteFailed`."""
        self.state_dir.save(_CONTAINERS, self.engine.export_cache())
        if limits := self.limits.export_copy():
            self.state_dir.save(_LIMITS, limits)


def open_parts(
    config: Config,
    on_change: OnChange | None = None,
    on_event: OnEvent | None = None,
    *,
    patience_s: float = SYSLOG_PATIENCE_S,
) -> Opened:
    """Make every adapter. Nothing is asked or written yet.

    `patience_s`: how long a line of the operations log may wait for a syslog that is busy.
    """
    own_dir, clock = state_dir(config), HostClock()
    engine = DockerEngine(
        config.docker.url, config.docker.timeout_s, read_boottime, on_change, on_event
    )
    books = BooksOnly(config)
    state = books.open_state_file()
    passwd = books.passwd
    processes = FollowedProcesses(
        is_known=engine.has_cached,
        users=passwd.find_logins,
        rootless=may_be_rootless(config.docker.url),
        is_hidden=engine.hides_processes,
    )
    gpu = None
    if config.gpu.source == "nvml":
        gpu = NvmlSampler(
            timeout_s=config.gpu.timeout_s,
            boot_clock=read_boottime,
            find_processes=processes.look_up,
            look_ahead=processes.look_ahead,
            pid_max=lambda: processes.pid_max,
            faults=KernelFaults().read,
        )
    operations = books.open_operations_log(patience_s)
    world = World(
        clock=clock,
        engine=engine,
        gpu=gpu,
        processes=processes,
        reserving=ReservingProcesses(processes),
        state=state,
        metadata=books.metadata,
        operations=operations,
        allocations=books.allocations,
        actor=books.actor,
        limits=books.limits,
        passwd=passwd,
        owners=OwnersFile(config.books.owners),
        device_rules=DeviceCgroups(report=AccessReport(), now=clock.now),
        state_dir=own_dir,
        published=PublishedStatus(config),
        # With a watch, its events show what lives; a command lists.
        running=books.running
        if on_change is None
        else CachedRunning(engine, config.policy.creation_grace_s),
    )

    def close() -> None:
        own_dir.give_up()
        state.give_up()
        engine.close()
        if gpu is not None:
            gpu.close()

    return Opened(
        world=world,
        engine=engine,
        limits=books.limits,
        operations=operations,
        state_dir=own_dir,
        close=close,
    )


def may_be_rootless(url: str) -> bool:
    """Whether an engine may be one that a user runs; not if its socket is the system's."""
    scheme, _, path = url.partition("://")
    if scheme != "unix":
        return True
    folders = Path(path).resolve().parts[1:]  # a link may lead to a user's
    return folders[:1] != ("run",) or folders[:2] == ("run", "user")


@contextmanager
def open_world(config: Config) -> Iterator[World]:
    """The world for a command: without a watch, each look is a list."""
    opened = open_parts(config)
    opened.load_cache()
    try:
        yield opened.world
    finally:
        opened.close()


@contextmanager
def open_container_services(config: Config) -> Iterator[ContainerServices]:
    """Open the services for one command.

    Root stays root here: whether a user may have a folder mounted is tried as that user.
    """
    from ds01d.containers.context import ContainerServices  # noqa: PLC0415 - others need none

    opened = open_parts(config)
    commands = DockerCommands(
        config.docker.url,
        config.docker.timeout_s,
        pull_idle_s=config.containers.pull_idle_s,
        pull_timeout_s=config.containers.pull_timeout_s,
    )
    sessions = DockerSessions(config.docker.url, config.docker.timeout_s)
    opened.load_cache()
    try:
        world = with_current_books(opened.world, config)
        yield ContainerServices(world=world, engine=commands, sessions=sessions)
    finally:
        commands.close()
        sessions.close()
        opened.close()
