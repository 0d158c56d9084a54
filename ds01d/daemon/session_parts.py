"""The adapters that a session of the daemon works with. Values; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ds01d.config import Config
from ds01d.daemon.accounting import AccountingParts
from ds01d.daemon.event_log import LogPort, ObservedEvent
from ds01d.daemon.notices import NoticeTarget
from ds01d.daemon.pass_metrics import StreamCounters
from ds01d.model.primitives import ContainerName
from ds01d.reconcile.ports import World
from ds01d.service.activity_calls import ReadLog
from ds01d.service.notice_calls import ReadNotices
from ds01d.service.notice_requests import FileStore
from ds01d.service.view_calls import View

if TYPE_CHECKING:  # off unless configured, and then not imported
    from ds01d.daemon.fleet_worker import FleetParts


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParts:
    """The adapters of one configuration, and how to start, persist and close them.

    `stream`: counters of Docker's event stream, None without one.
    `take_over_books`: make ds01d their only writer, where that is configured, and again after each
    sweep if they were given away; gives what is to be logged.
    `views`: what ds01d prints for commands, those of the configuration in `file`.
    `accounting`: where it is kept, None for nowhere.
    `notices`: where notices to users go; `read_notices`: the newest of a user, from there.
    `notice_files`: where requests for notices are kept, None where no notice is given.
    `read_log`: the newest lines of the operations log.
    `fleet`: the store that all hosts share, None without one.
    `state_dir_lost`: whether the state directory is gone, which only systemd can create again.
    """

    world: World
    operations: LogPort
    start: Callable[[], None]
    persist: Callable[[], None]
    close: Callable[[], None]
    stream: StreamCounters | None = None
    notices: Sequence[NoticeTarget] = ()
    read_notices: ReadNotices = lambda _: ()
    notice_files: FileStore | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    file: Path | None = None
    fleet: FleetParts | None = None
    state_dir_lost: Callable[[], bool] = lambda: False
    take_over_books: Callable[[], Sequence[str]] = tuple
    accounting: AccountingParts | None = None
    read_log: ReadLog = lambda _: ()


OnChange = Callable[[frozenset[ContainerName] | None], None]
OnEvent = Callable[[ObservedEvent], None]
OpenParts = Callable[[Config, OnChange, OnEvent], SessionParts]
