"""Bookings for code inside the daemon: the same calls of the worker, without a socket.

The worker stays the only writer, and the caller's rules, limits and place in the queue are those of
the user for whom the call is made.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from ds01d.service.allocator_client import RemoteAllocator
from ds01d.service.client import INTERFACE
from ds01d.service.exchange import TIMEOUT_S, ServiceRefused, ServiceUnanswered
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import MethodCall

SubmitCall = Callable[[PendingCall], None]
_NOWHERE: Final = Path("/")
_Replies = queue.SimpleQueue[bytes | None]


class _InternalCall(PendingCall):
    """A call whose reply arrives also after it was withdrawn: a booking that was made is known."""

    def __init__(self, peer: Peer, call: MethodCall, replies: _Replies) -> None:
        super().__init__(peer, call, lambda message, _: replies.put(message))
        self._replies = replies

    def finish(self, parameters: object) -> None:
        if self.is_open:
            super().finish(parameters)
        else:
            self._replies.put(msgspec.json.encode({"parameters": parameters}) + b"\0")


class WorkerAllocator(RemoteAllocator):
    """The allocator of this daemon's worker, for one peer. `cancel_wait` is for any thread."""

    def __init__(self, peer: Peer, submit: SubmitCall) -> None:
        super().__init__(_NOWHERE)
        self._peer, self._submit = peer, submit
        self._wait: tuple[_InternalCall, _Replies] | None = None

    def cancel_wait(self) -> None:
        # First this, then `_wait`: `stream` goes the other way round, so one of both sees it.
        self._is_cancelled = True
        if self._wait is not None:
            request, replies = self._wait
            request.withdraw()
            replies.put(None)

    def call(
        self,
        method: str,
        parameters: Mapping[str, object],
        *,
        repeats: int = 0,  # noqa: ARG002 - no answer is lost on the way
    ) -> dict[str, Any]:
        request, replies = self._make_call(method, parameters)
        self._submit(request)
        try:
            message = replies.get(timeout=TIMEOUT_S)
        except queue.Empty:
            if request.withdraw_queued():
                busy = unavailable("ds01d is busy: the booking was not served")
                raise ServiceRefused(busy.error, busy.parameters) from None
            # The worker has taken it, and may still book: that is no refusal.
            raise ServiceUnanswered(f"no answer of ds01d's worker to {method}") from None
        return _read_reply(message)

    def stream(
        self,
        method: str,
        parameters: Mapping[str, object],
        *,
        more: bool = True,
        repeats: int = 0,  # noqa: ARG002 - as above
    ) -> Iterator[dict[str, Any]]:
        self._wait = self._make_call(method, parameters, more=more)
        request, replies = self._wait
        self._submit(request)
        if self._is_cancelled:
            request.withdraw()
            replies.put(None)
        yield from map(_read_reply, iter(replies.get, None))
        # Decision 195, a call behind it: once that is answered, no attempt for this one is being
        # made any more.
        self.call("Quota", {})
        yield from _drain_replies(replies)
        raise ServiceUnanswered("the wait for a slot was ended")

    def _make_call(
        self, method: str, parameters: Mapping[str, object], *, more: bool = False
    ) -> tuple[_InternalCall, _Replies]:
        given = {key: value for key, value in parameters.items() if value is not None}
        call = MethodCall(
            method=f"{INTERFACE}.{method}",
            parameters=msgspec.Raw(msgspec.json.encode(given)),
            more=more,
        )
        replies: _Replies = queue.SimpleQueue()
        return _InternalCall(self._peer, call, replies), replies


def _drain_replies(replies: _Replies) -> Iterator[dict[str, Any]]:
    while True:
        try:
            message = replies.get_nowait()
        except queue.Empty:
            return
        if message is not None:
            yield _read_reply(message)


def _read_reply(message: bytes | None) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads((message or b"{}").rstrip(b"\0"))
    if "error" in reply:
        raise ServiceRefused(reply["error"], reply["parameters"])
    parameters: dict[str, Any] = reply["parameters"]
    return parameters
