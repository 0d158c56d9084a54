"""How much one caller may ask of the service: connections and calls, counted for each uid. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

MAX_CONNECTIONS: Final = 64
MAX_CONNECTIONS_PER_UID: Final = 4
MAX_CALLS_PER_MINUTE: Final = 60
_FIRST_RESERVE: Final = 16  # of them, for uids that have none: who waits has one for hours
_ROOT_RESERVE: Final = 8  # connections for root, so that others cannot lock it out
_WINDOW_S: Final = 60.0


class Admission:
    """Counts for one socket. For one thread. `clock`: seconds, monotonic.

    Root is limited by nothing but the total: its scripts may call in a loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: Counter[int] = Counter()
        self._calls: dict[int, deque[float]] = {}

    def open_connection(self, uid: int) -> str:
        """Count a connection; gives why it is refused, and counts nothing then."""
        if uid != 0 and self._open[uid] >= MAX_CONNECTIONS_PER_UID:
            return f"uid {uid} has {MAX_CONNECTIONS_PER_UID} connections open already"
        # Decision 191: a caller that has a connection leaves the last ones to uids that have none.
        most = MAX_CONNECTIONS - (_FIRST_RESERVE if self._open[uid] else 0)
        if self._open.total() >= (MAX_CONNECTIONS + _ROOT_RESERVE if uid == 0 else most):
            return f"{most} connections are open already"
        self._open[uid] += 1
        return ""

    def close_connection(self, uid: int) -> None:
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]

    def count_call(self, uid: int) -> str:
        """Count a call; gives why it is refused, and counts nothing then."""
        if uid == 0:
            return ""
        now = self._clock()
        self._forget_before(now - _WINDOW_S)
        calls = self._calls.setdefault(uid, deque())
        if len(calls) >= MAX_CALLS_PER_MINUTE:
            wait_s = calls[0] + _WINDOW_S - now
            return (
                f"uid {uid} has made {MAX_CALLS_PER_MINUTE} calls within a minute; "
                f"try again in {max(1.0, wait_s):.0f} s"
            )
        calls.append(now)
        return ""

    def _forget_before(self, moment: float) -> None:
        for uid, calls in [*self._calls.items()]:
            while calls and calls[0] <= moment:
                calls.popleft()
            # Or each uid that ever called would be kept for ever.
            if not calls:
                del self._calls[uid]
