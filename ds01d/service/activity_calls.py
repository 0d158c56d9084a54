"""Activity: who waits for a slot, and what was done last. Served in the worker's thread.

For operators and for the web page, which shows it to all who may see the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import msgspec

from ds01d.documents.values import DisplayTime
from ds01d.model.books import LogLine
from ds01d.service import rules
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import Handler
from ds01d.service.requests import PendingCall
from ds01d.service.varlink import Parameters, parse_parameters
from ds01d.service.waiting import Waiter, WaitingQueue

_MOST_LINES: Final = 100
_MOST_WAITING: Final = 200

ReadLog = Callable[[int], Sequence[LogLine]]
"""The newest lines of the operations log, so many at most. Raises `Ds01Error`."""


class ActivityParameters(Parameters, frozen=True):
    most: Annotated[int, msgspec.Meta(ge=0, le=_MOST_LINES)] | None = None


class WaitingCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that waits. `slot`: this one only; `reason`: why it has none yet."""

    position: int
    user: str
    container: str
    slot: str | None
    profile: str | None
    count: int
    reason: str


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the operations log. `at`: UTC, as in every document of ours."""

    at: str
    operation: str
    user: str
    container: str
    gpu: str
    status: str
    details: str


class ActivityCalls:
    """`queue`: who waits for a slot."""

    def __init__(self, queue: WaitingQueue, read_log: ReadLog) -> None:
        self._queue, self._read_log = queue, read_log
        self.handlers: Final[Mapping[str, Handler]] = {f"{INTERFACE}.Activity": self._describe}

    def _describe(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, ActivityParameters)
        rules.require_page_reader(request.peer)
        # Or callers who are gone would count as waiting.
        self._queue.drop_closed()
        waiting = [*self._queue][:_MOST_WAITING]
        lines = self._read_log(_MOST_LINES if wanted.most is None else wanted.most)
        return {
            "waiting": [_describe_waiter(n, waiter) for n, waiter in enumerate(waiting, 1)],
            "log": [_describe_line(line) for line in lines],
        }


def _describe_waiter(position: int, waiter: Waiter) -> WaitingCall:
    return WaitingCall(
        position=position,
        user=waiter.user,
        container=waiter.container,
        slot=waiter.slot,
        profile=waiter.profile,
        count=waiter.count,
        reason=waiter.reason,
    )


def _describe_line(line: LogLine) -> LogEntry:
    return LogEntry(
        at=DisplayTime(line.at).to_utc(),
        operation=line.operation,
        user=line.user,
        container=line.container,
        gpu=line.gpu,
        status=line.status,
        details=line.details,
    )
