"""Calls that take seconds, each in a thread of its own, so that the worker waits for none."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from ds01d.errors import Ds01Error
from ds01d.reporting.message_ids import Event
from ds01d.service.client import STOPPING
from ds01d.service.requests import PendingCall
from ds01d.service.rules import unavailable
from ds01d.service.varlink import VarlinkError

MAX_LONG: Final = 32
"""Calls at once that may wait for a slot or a pull."""
MAX_SHORT: Final = 16
MAX_LONG_PER_UID: Final = 2
_JOIN_S: Final = 2.5
_UNDONE: Final = "ds01d is stopping: nothing is left of it once ds01d runs again"

Handler = Callable[[PendingCall], object]
"""Serves a call and gives the parameters of the last reply. Raises `Ds01Error`."""


class CallThreads:
    """Bounded by the number of threads; how many calls a uid makes is bounded by its connections.

    `describe_error` makes the error reply.
    """

    def __init__(self, describe_error: Callable[[Ds01Error], VarlinkError]) -> None:
        self._describe_error = describe_error
        self._log = structlog.get_logger()
        self._lock = threading.Lock()
        self._is_stopping = False
        self._short: set[threading.Thread] = set()
        self._long: dict[threading.Thread, PendingCall] = {}

    def start(self, request: PendingCall, handler: Handler, *, is_long: bool = False) -> None:
        """Serve a call, or fail it if too many are being served. Returns at once."""
        thread = threading.Thread(
            target=self._serve, args=(request, handler), name="ds01d-call", daemon=True
        )
        with self._lock:
            refusal = self._find_refusal(request, is_long=is_long)
            if not refusal and request.take():
                if is_long:
                    self._long[thread] = request
                else:
                    self._short.add(thread)
                thread.start()
        if refusal:
            request.fail(self._describe_error(unavailable(refusal)))

    def stop(self) -> None:
        """Withdraw the long calls, as if their peers were gone, and take no more."""
        with self._lock:
            self._is_stopping = True
            requests = [*self._long.values()]
        for request in requests:
            request.fail(self._describe_error(unavailable(_UNDONE)))
            request.abort()

    def join(self) -> None:
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
        if not is_long:
            full = len(self._short) >= MAX_SHORT
            return f"{MAX_SHORT} calls are being served; try again" if full else ""
        if len(self._long) >= MAX_LONG:
            return f"{MAX_LONG} creations are in progress; try again later"
        uid = request.peer.uid
        of_uid = Counter(other.peer.uid for other in self._long.values())[uid]
        if uid != 0 and of_uid >= MAX_LONG_PER_UID:
            return f"{MAX_LONG_PER_UID} creations of uid {uid} are in progress; try again later"
        return ""

    def _serve(self, request: PendingCall, handler: Handler) -> None:
        try:
            request.finish(handler(request))
        except Ds01Error as error:
            request.fail(self._describe_error(error))
        except Exception as error:  # noqa: BLE001 - a bug ends this call only
            self._log.error(
                Event.SERVICE_FAILED,
                reason=f"{request.call.method}: {type(error).__name__}: {error}",
                exc_info=True,
            )
            internal = unavailable("internal error: see the journal of ds01d")
            request.fail(self._describe_error(internal))
        finally:
            with self._lock:
                self._short.discard(threading.current_thread())
                self._long.pop(threading.current_thread(), None)
