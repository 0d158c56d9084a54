"""Joins the parts of the daemon: what it opens for each configuration, and its socket.

Holds no logic of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ds01d import config_file
from ds01d.adapters.alerts_folder import AlertsFolder
from ds01d.adapters.books.exclusive_access import ExclusiveAccess, take_over
from ds01d.adapters.books.last_lines import read_last_lines
from ds01d.adapters.books.metadata_format import read_user
from ds01d.adapters.docker.engine import OnChange, OnEvent
from ds01d.bootstrap import load_config, open_container_services, open_parts, state_dir
from ds01d.bootstrap_reports import read_usage
from ds01d.config import Config
from ds01d.errors import Ds01Error
from ds01d.folders import make_folder
from ds01d.reconcile.books_ports import StateBook

if TYPE_CHECKING:
    from ds01d.adapters.state_dir import StateDirectory
    from ds01d.daemon.fleet_worker import FleetParts
    from ds01d.daemon.notices import NoticeTarget
    from ds01d.service.notice_calls import ReadNotices
    from ds01d.service.service import Service
    from ds01d.service.view_calls import View


def run_daemon(path: Path | None, views: Mapping[str, View]) -> int:
    """Run in the foreground until a signal ends it; the exit status. Raises `ConfigError`.

    `views`: what it prints for commands.
    """
    from ds01d.adapters.accounting_file import AccountingFile  # noqa: PLC0415 - see below
    from ds01d.daemon.accounting import AccountingParts  # noqa: PLC0415 - see below
    from ds01d.daemon.loop import Daemon  # noqa: PLC0415 - commands do not need it
    from ds01d.daemon.session_parts import SessionParts  # noqa: PLC0415 - see above

    def parts(config: Config, on_change: OnChange, on_event: OnEvent) -> SessionParts:
        # A syslog that is busy may keep a command waiting, and not the worker.
        opened = open_parts(config, on_change, on_event, patience_s=0.0)
        opened.state_dir.make()
        if config.books.kind == "docker":
            make_folder(config.books.metadata, 0o755)
        opened.load_cache()
        keep_days = config.accounting.keep_days
        accounting = AccountingParts(
            store=AccountingFile(config.daemon.state_dir, keep_days), find_record_user=read_user
        )
        return SessionParts(
            world=opened.world,
            operations=opened.operations,
            views=views,
            file=file,
            start=opened.engine.start,
            persist=opened.save_cache,
            close=opened.close,
            stream=opened.engine,
            notices=(targets := _open_notice_targets(config)),
            read_notices=_open_notice_reader(config),
            # Nobody is promised a notice that nothing would give.
            notice_files=opened.state_dir if targets else None,
            take_over_books=ExclusiveAccess(
                lambda: take_over_books(config, opened.world.state),
                _list_places(config) if config.is_only_writer else (),
            ),
            fleet=_open_fleet(config, opened.state_dir),
            read_log=partial(read_last_lines, config.logs.operations),
            accounting=None if keep_days == 0 else accounting,
            state_dir_lost=lambda: (
                opened.state_dir.replaced and _by_systemd(opened.state_dir.path, os.environ)
            ),
        )

    file = config_file.find_named_file(path, os.environ) or config_file.DEFAULT_PATH
    return Daemon(
        load=lambda: load_config(path), open_parts=parts, file=file, open_service=open_service
    ).run()


def _open_fleet(config: Config, store: StateDirectory) -> FleetParts | None:
    if not config.fleet.etcd:
        return None
    from ds01d.bootstrap_fleet import open_fleet  # noqa: PLC0415 - off unless configured

    return open_fleet(config, store)


def _open_notice_targets(config: Config) -> list[NoticeTarget]:
    folder = config.notify.folder
    targets: list[NoticeTarget] = [] if folder is None else [AlertsFolder(folder)]
    if config.notify.uses_sender:
        from ds01d.adapters.notices.spool import (  # noqa: PLC0415 - off unless configured
            NoticeSpool,
            spool_folder,
        )

        targets.append(NoticeSpool(spool_folder(config.daemon.state_dir)))
    return targets


def _open_notice_reader(config: Config) -> ReadNotices:
    """What reads a user's newest notices from the spool; without one there are none."""
    if not config.notify.uses_sender:
        return lambda _: ()
    from ds01d.adapters.notices.spool import (  # noqa: PLC0415 - off unless configured
        read_user_notices,
        spool_folder,
    )

    return partial(read_user_notices, spool_folder(config.daemon.state_dir))


def _by_systemd(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether systemd makes this directory before it starts us (StateDirectory=)."""
    folders = environ.get("STATE_DIRECTORY", "").split(":")
    return any(folder and Path(folder).resolve() == path.resolve() for folder in folders)


def _list_places(config: Config) -> dict[Path, list[str]]:
    """The folders of books and logs, with how the names of their files begin."""
    books, logs = config.books, config.logs
    places: dict[Path, list[str]] = {books.metadata: [""]}
    for file in (books.state, logs.operations, logs.allocations):  # and what is kept beside them
        places.setdefault(file.parent, []).append(file.name)
    return places


def take_over_books(config: Config, state: StateBook) -> list[str]:
    """Make ds01d the only writer of the books, where it repairs them; gives what failed."""
    if not config.is_only_writer:
        return []
    books, places = config.books, _list_places(config)
    lock = f"{books.state.name}.lock"
    # The lock first: the holder of the previous one holds nothing.
    problems = take_over({books.state.parent: [lock]}, frozenset({lock}))
    try:
        # Then under it: a writer may be between reading a file and replacing it.
        with state.lock():
            return problems + take_over(places, frozenset({lock}))
    except Ds01Error as error:
        return [*problems, f"the books are not the service's own yet: {error}"]


def open_service(config: Config, wake: Callable[[], None]) -> Service | None:
    """The service on systemd's socket, else on one of its own. Raises `ConfigError`."""
    from ds01d.containers.service import ContainerService  # noqa: PLC0415 - commands do not need it
    from ds01d.daemon.systemd import take_sockets  # noqa: PLC0415 - commands do not need it
    from ds01d.service.listening import listen_at  # noqa: PLC0415 - see above
    from ds01d.service.report_calls import ReportCalls  # noqa: PLC0415 - see above
    from ds01d.service.requests import RequestQueue  # noqa: PLC0415 - see above
    from ds01d.service.service import Service  # noqa: PLC0415 - see above

    sockets = take_sockets()
    path = config.service.path
    if not sockets and path is not None and path.parent.is_dir():
        sockets = [listen_at(path)]
    if not sockets:
        return None
    queue = RequestQueue(wake)
    containers = ContainerService(config, queue.submit, open_container_services, state_dir)
    return Service(
        sockets,
        queue,
        ReportCalls(config, read_usage),
        containers,
        from_containers=config.service.from_containers,
    )
