"""The environment of a command, as one value; tests replace it with a host in memory.

Heavy imports happen on first use, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ds01d.cli.base.fleet import Fleet
    from ds01d.config import Config
    from ds01d.containers.context import ContainerServices
    from ds01d.documents.notices import OwnNoticeRequest, OwnNotices
    from ds01d.documents.quota import QuotaDocument
    from ds01d.documents.usage_report import UsageReport
    from ds01d.model.accounting import ReportQuery
    from ds01d.model.catalogue_check import LocalImage, NotInRegistry, RegistryImage
    from ds01d.model.creation import Caller
    from ds01d.reconcile.ports import World
    from ds01d.service.allocator_client import SlotAllocator
    from ds01d.service.operations_client import RemoteOperations


def _open_container_services(config: Config) -> AbstractContextManager[ContainerServices]:
    from ds01d import bootstrap  # noqa: PLC0415 - heavy

    return bootstrap.open_container_services(config)


class ImageSource(Protocol):
    """What an engine and its registries have. Raises `EngineFailed`."""

    def read_architecture(self) -> str: ...

    def find_local(self, reference: str) -> LocalImage | None: ...

    def ask_registry(self, reference: str) -> RegistryImage | NotInRegistry: ...


def _open_images(config: Config) -> ImageSource:
    from ds01d.adapters.docker.images import DockerImages  # noqa: PLC0415 - few commands need it

    return DockerImages(config.docker.url, config.docker.timeout_s)


def _open_allocator(config: Config) -> AbstractContextManager[SlotAllocator]:
    from ds01d import bootstrap_books  # noqa: PLC0415 - few commands need it

    return bootstrap_books.open_allocator(config)


def _read_quota(config: Config, user: str | None) -> QuotaDocument:
    from ds01d import bootstrap_books, bootstrap_reports  # noqa: PLC0415 - few commands need it
    from ds01d.adapters.host.callers import current_actor  # noqa: PLC0415

    # Root as everybody: who waits, only the daemon knows.
    remote = bootstrap_books.find_operations(config)
    if remote is not None:
        return remote.read_quota(user)
    return bootstrap_reports.read_quota(config, user or current_actor().login)


def _read_notices(config: Config, user: str | None) -> OwnNotices:
    return _require_operations(config).read_notices(user)


def _withdraw_notices(config: Config, user: str | None) -> Sequence[OwnNoticeRequest]:
    return _require_operations(config).withdraw_notices(user)


def _require_operations(config: Config) -> RemoteOperations:
    """Those of the daemon, which alone knows what is asked. Raises `NotPermitted`."""
    from ds01d import bootstrap_books  # noqa: PLC0415 - few commands need it
    from ds01d.errors import NotPermitted  # noqa: PLC0415

    remote = bootstrap_books.find_operations(config)
    if remote is None:
        place = config.service.path or "its socket, which is off"
        raise NotPermitted(f"cannot reach ds01d at {place} (is ds01d running?)")
    return remote


def _read_usage(config: Config, query: ReportQuery) -> UsageReport:
    from ds01d import bootstrap, bootstrap_reports  # noqa: PLC0415 - heavy
    from ds01d.errors import NotPermitted  # noqa: PLC0415

    # Decision 249: who may write there may read all bookings; everybody else asks the daemon.
    if not os.access(config.daemon.state_dir, os.W_OK):
        place = config.service.path or "its socket, which is off"
        raise NotPermitted(f"cannot reach ds01d at {place} (is ds01d running?)")
    # decision 94: SQLite makes files beside its own, which have to be the service's.
    bootstrap.act_as_service(config)
    return bootstrap_reports.read_usage(config, query)


def _open_fleet(config: Config) -> Fleet:
    from ds01d.adapters.host.privileges import require_of_root  # noqa: PLC0415 - as below
    from ds01d.cli.base.fleet import Fleet  # noqa: PLC0415 - only where other hosts are asked

    if config.fleet.hosts_file:
        require_of_root(Path(config.fleet.hosts_file), os.environ)
    return Fleet(config)


def _find_caller() -> Caller:
    from ds01d.adapters.host.callers import identify_caller  # noqa: PLC0415 - few commands need it

    return identify_caller(os.environ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything outside the process that commands use.

    `read_history` yields every line, oldest first, or raises `Ds01Error`. `make_state_dir` comes
    before any write: it creates `state_dir` if it is missing and switches root to its owner.
    `engine_version` asks Docker or raises `EngineFailed`. `sleep` takes seconds. `open_allocator`
    is for commands that book slots, `open_container_services` for those that change containers;
    `find_caller` returns the user on whose behalf they run; `find_operations` the operations of the
    daemon, for who needs them; `read_usage` reads the accounting, for who may; `read_quota` a
    user's quota, None for the caller's; `read_notices` and `withdraw_notices` a user's notices and
    requests for one, likewise; `open_fleet` the other hosts; `require_operations` the operations
    of the daemon, which nobody else can do.
    """

    load_config: Callable[[Path | None], Config]
    open_world: Callable[[Config], AbstractContextManager[World]]
    read_history: Callable[[Config], Iterable[bytes]]
    make_state_dir: Callable[[Config], None]
    engine_version: Callable[[Config], str]
    sleep: Callable[[float], None] = time.sleep
    open_allocator: Callable[[Config], AbstractContextManager[SlotAllocator]] = _open_allocator
    open_container_services: Callable[[Config], AbstractContextManager[ContainerServices]] = (
        _open_container_services
    )
    find_caller: Callable[[], Caller] = _find_caller
    open_images: Callable[[Config], ImageSource] = _open_images
    find_operations: Callable[[Config], RemoteOperations | None] = lambda _: None
    read_quota: Callable[[Config, str | None], QuotaDocument] = _read_quota
    read_notices: Callable[[Config, str | None], OwnNotices] = _read_notices
    withdraw_notices: Callable[[Config, str | None], Sequence[OwnNoticeRequest]] = _withdraw_notices
    read_usage: Callable[[Config, ReportQuery], UsageReport] = _read_usage
    open_fleet: Callable[[Config], Fleet] = _open_fleet
    require_operations: Callable[[Config], RemoteOperations] = _require_operations


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One call of a command: its environment, and the file given with --config, if any."""

    environment: Environment
    config_file: Path | None = None

    def config(self) -> Config:
        """The configuration. Raises `ConfigError`."""
        return self.environment.load_config(self.config_file)


def host_environment() -> Environment:
    """This host."""
    return Environment(
        load_config=_load_config,
        open_world=_open_world,
        read_history=_read_history,
        make_state_dir=_make_state_dir,
        engine_version=_engine_version,
        find_operations=_find_operations,
    )


def _load_config(path: Path | None) -> Config:
    from ds01d import bootstrap  # noqa: PLC0415 - heavy
    from ds01d.adapters.host.privileges import require_of_root  # noqa: PLC0415
    from ds01d.config_file import find_named_file  # noqa: PLC0415

    # decision 115: root must not follow a configuration that a user could have written.
    if (file := find_named_file(path, os.environ)) is not None:
        require_of_root(file, os.environ)
    return bootstrap.load_config(path)


def _open_world(config: Config) -> AbstractContextManager[World]:
    from ds01d import bootstrap  # noqa: PLC0415 - heavy

    return bootstrap.open_world(config)


def _find_operations(config: Config) -> RemoteOperations | None:
    # Root has to be able to do everything when the daemon hangs.
    if os.access(config.daemon.state_dir, os.W_OK):
        return None
    from ds01d import bootstrap_books  # noqa: PLC0415 - few commands need it

    return bootstrap_books.find_operations(config)


def _read_history(config: Config) -> Iterable[bytes]:
    from ds01d import bootstrap  # noqa: PLC0415 - heavy
    from ds01d.adapters.files.safe_read import NotRead, ReadFailure, open_file  # noqa: PLC0415
    from ds01d.errors import Ds01Error  # noqa: PLC0415

    state_dir = bootstrap.state_dir(config)
    descriptor = open_file(state_dir.history)
    if not isinstance(descriptor, NotRead):
        os.close(descriptor)
    # A missing history is an empty one; an unreadable one must not look empty.
    elif descriptor.obstacle is not ReadFailure.MISSING:
        raise Ds01Error(f"the history cannot be read: {descriptor.reason}")
    return state_dir.read_history()


def _make_state_dir(config: Config) -> None:
    from ds01d import bootstrap  # noqa: PLC0415 - heavy

    bootstrap.state_dir(config).make()
    # decision 94: files that root creates must belong to the owner of `state_dir`.
    bootstrap.act_as_service(config)


def _engine_version(config: Config) -> str:
    from ds01d.adapters.docker.http_client import HttpClient  # noqa: PLC0415 - heavy

    answer = json.loads(HttpClient(config.docker.url, config.docker.timeout_s).get("/version"))
    return str(answer.get("Version", "unknown")) if isinstance(answer, dict) else "unknown"
