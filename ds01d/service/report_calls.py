"""Report: who had which slot. Read in threads of its own, so that the worker waits for none.

Everybody may ask for their own bookings, operators for those of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Final

import msgspec

from ds01d.config import Config
from ds01d.documents.usage_report import UsageReport
from ds01d.model.accounting import ReportQuery, ReportSubject
from ds01d.model.primitives import SlotId, UserName, Wall
from ds01d.service import rules
from ds01d.service.call_threads import CallThreads
from ds01d.service.client import INTERFACE, MOST_BOOKINGS
from ds01d.service.dispatch import describe_error
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.varlink import Parameters, invalid_parameter, parse_parameters

REPORT: Final = f"{INTERFACE}.Report"
_MAX_MOMENT: Final = 253_402_300_799  # the end of year 9999

_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Moment = Annotated[float, msgspec.Meta(ge=0, le=_MAX_MOMENT)]

ReadUsage = Callable[[Config, ReportQuery], UsageReport]
"""Read a report. Raises `Ds01Error`."""


class ReportParameters(Parameters, frozen=True):
    since: _Moment
    until: _Moment | None = None
    by: _Text | None = None
    user: _Text | None = None
    group: _Text | None = None
    slot: _Text | None = None
    older_than: Annotated[int, msgspec.Meta(ge=0, lt=2**62)] | None = None
    most: Annotated[int, msgspec.Meta(ge=1, le=MOST_BOOKINGS)] | None = None


class ReportCalls:
    """Serves them by the configuration applied last."""

    def __init__(self, config: Config, read_usage: ReadUsage) -> None:
        self._config, self._read_usage = config, read_usage
        self._threads = CallThreads(describe_error)

    def submit(self, request: PendingCall) -> None:
        """Serve a call in a thread. Returns at once."""
        self._threads.start_call(request, self._make_report)

    def apply_config(self, config: Config) -> None:
        self._config = config

    def stop(self) -> None:
        self._threads.stop_calls()

    def join(self) -> None:
        self._threads.join_threads()

    def _make_report(self, request: PendingCall) -> object:
        # As its own thread: the worker repairs meanwhile, whatever SQLite has to read.
        query = build_query(parse_parameters(request.call, ReportParameters), Wall(time.time()))
        return {"report": self._read_usage(self._config, restrict_query(query, request.peer))}


def build_query(wanted: ReportParameters, now: Wall) -> ReportQuery:
    """The query of a call. Raises `VarlinkError` (InvalidParameter)."""
    try:
        by = ReportSubject(wanted.by or ReportSubject.USER.value)
    except ValueError as error:
        raise invalid_parameter("by") from error
    until = now if wanted.until is None else Wall(wanted.until)
    if until < wanted.since:
        raise invalid_parameter("until")
    return ReportQuery(
        since=Wall(wanted.since),
        until=until,
        by=by,
        user=None if wanted.user is None else UserName(wanted.user),
        group=wanted.group,
        slot=None if wanted.slot is None else SlotId(wanted.slot),
        before=wanted.older_than,
        most=wanted.most or MOST_BOOKINGS,
    )


def restrict_query(query: ReportQuery, peer: Peer) -> ReportQuery:
    """The query of one who is no operator is about themselves. Raises `VarlinkError`."""
    if peer.is_operator:
        return query
    # What the host did in a day names nobody; the page shows it.
    is_about_all = query.user is None and query.group is None and query.slot is None
    if query.by is ReportSubject.DAY and is_about_all and rules.is_page_reader(peer):
        return query
    # Decision 249: who had what, when and how long, is nobody else's business.
    if query.group is not None or query.by is ReportSubject.GROUP:
        rules.require_operator(peer)
    return replace(query, user=rules.choose_user(peer, query.user))
