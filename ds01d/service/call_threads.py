"""Calls that take seconds, each in a thread of its own, so that the worker waits for none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from ds01d.errors import Ds01Error
from ds01d.service.client import STOPPING
from ds01d.service.dispatch import fail_unexpectedly
from ds01d.service.requests import PendingCall
from ds01d.service.rules import unavailable
from ds01d.service.varlink import VarlinkError

MAX_LONG: Final = 32
"""Calls at once that may wait for a slot or a pull."""
MAX_SHORT: Final = 64
MAX_LONG_PER_UID: Final = 2
MAX_SHORT_PER_UID: Final = 4
_JOIN_S: Final = 2.5
_UNDONE: Final = "ds01d is stopping: nothing is left of it once ds01d runs again"

Handler = Callable[[PendingCall], object]
"""Serves a call and gives the parameters of the last reply. Raises `Ds01Error`."""


class CallThreads:
    """Bounded by the number of threads, in all and for each uid: a call goes on without its peer.

    `describe_error` makes the error reply.
    """

    def __init__(self, describe_error: Callable[[Ds01Error], VarlinkError]) -> None:
        self._describe_error = describe_error
        self._lock = threading.Lock()
        self._is_stopping = False
        self._short: dict[threading.Thread, PendingCall] = {}
        self._long: dict[threading.Thread, PendingCall] = {}

    def start_call(self, request: PendingCall, handler: Handler, *, is_long: bool = False) -> None:
        """Serve a call, or fail it if too many are being served. Returns at once."""
        # daemon: a call that hangs in Docker must not keep ds01d from ending.
        thread = threading.Thread(
            target=self._serve_call, args=(request, handler), name="ds01d-call", daemon=True
        )
        with self._lock:
            refusal = self._find_refusal(request, is_long=is_long)
            # Counted and started under one lock, so that no call slips by `stop_calls`.
            if not refusal and request.take():
                (self._long if is_long else self._short)[thread] = request
                thread.start()
        if refusal:
            request.fail(self._describe_error(unavailable(refusal)))

    def stop_calls(self) -> None:
        """Withdraw the long calls, as if their peers were gone, and take no more."""
        with self._lock:
            self._is_stopping = True
            # Not the short ones: half a start or half a removal would help nobody.
            requests = [*self._long.values()]
        for request in requests:
            # Failed first: its caller gets the reason, and `CallInterrupt` goes by it.
            request.fail(self._describe_error(unavailable(_UNDONE)))
            request.abort_work()

    def join_threads(self) -> None:
        """Wait some seconds for what is being served."""
        deadline = time.monotonic() + _JOIN_S
        with self._lock:
            threads = [*self._long, *self._short]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _find_refusal(self, request: PendingCall, *, is_long: bool) -> str:
        """Why a call is not served now; "" if it is."""
        if self._is_stopping:
            return STOPPING
        served, most, most_of_uid = self._short, MAX_SHORT, MAX_SHORT_PER_UID
        if is_long:
            served, most, most_of_uid = self._long, MAX_LONG, MAX_LONG_PER_UID
        subject = "creations are in progress" if is_long else "calls are being served"
        uid = request.peer.uid
        # Root can stop ds01d anyhow: a share of its own would only hinder its scripts.
        if uid != 0 and sum(call.peer.uid == uid for call in served.values()) >= most_of_uid:
            return f"{most_of_uid} {subject} for uid {uid}; try again later"
        return f"{most} {subject}; try again later" if len(served) >= most else ""

    def _serve_call(self, request: PendingCall, handler: Handler) -> None:
        try:
            request.finish(handler(request))
        except Ds01Error as error:
            request.fail(self._describe_error(error))
        except Exception as error:  # noqa: BLE001 - a bug ends this call only
            fail_unexpectedly(request, error, self._describe_error)
        finally:
            with self._lock:
                self._short.pop(threading.current_thread(), None)
                self._long.pop(threading.current_thread(), None)
