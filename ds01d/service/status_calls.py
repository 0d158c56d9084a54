"""Status: the document as it is now, or with `more` each change of it. For the worker's thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from ds01d.reporting.status import Status
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import Handler
from ds01d.service.requests import PendingCall
from ds01d.service.rules import unavailable
from ds01d.service.varlink import Parameters, encode_reply, parse_parameters

SEND_EVERY_S: Final = 1.0


class StatusCalls:
    """Those who follow get a new status once a second at most; a slow reader gets the newest."""

    def __init__(
        self, read_status: Callable[[], Status], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read_status, self._clock = read_status, clock
        self._followers: list[PendingCall] = []
        self._unsent: Status | None = None
        self._sent_at = -math.inf
        self.handlers: Final[Mapping[str, Handler]] = {f"{INTERFACE}.Status": self._send_status}

    def publish(self, status: Status) -> None:
        """Send it to those who follow, as soon as it may be."""
        self._unsent = status

    def wait_s(self) -> float:
        """Seconds until something is to be sent."""
        if self._unsent is None or not self._followers:
            return math.inf
        return max(0.0, self._sent_at + SEND_EVERY_S - self._clock())

    def send_if_due(self) -> None:
        if self.wait_s() > 0.0:
            return
        status, self._unsent, self._sent_at = self._unsent, None, self._clock()
        self._followers = [request for request in self._followers if request.is_open]
        # Once for all who follow: the time is the worker's, and their number is theirs.
        message = encode_reply({"status": status}, continues=True)
        for request in self._followers:
            request.offer_reply(message)

    def fail_all(self, reason: str) -> None:
        """End every call: ds01d stops, or its configuration is another one."""
        for request in self._followers:
            request.fail(unavailable(reason))
        self._followers = []

    def _send_status(self, request: PendingCall) -> object | None:
        parse_parameters(request.call, Parameters)
        reply = {"status": self._read_status()}
        if not request.call.more:
            return reply
        self._followers = [other for other in self._followers if other.is_open]
        self._followers.append(request)
        request.offer_reply(encode_reply(reply, continues=True))
        return None
