"""Spares callers the wait for a server that did not answer a moment ago.

After a failure no call is made for a while; then one at a time tries again, and the first success
lets all through. It makes no calls itself and knows nothing of what they are for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

# The first is as long as the time-out of a call; the longest bounds how long a store that is back
# goes unnoticed (decision 303).
FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 10.0


class CircuitBreaker:
    """Any thread may call. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # Monotonic: a wall clock that is set back would keep the breaker open for as long.
        self._clock = clock
        self._guard = threading.Lock()
        self._pause_s = 0.0
        self._open_until = 0.0
        self._reason = ""

    def allows_call(self) -> bool:
        """Whether a call may be made now. After a pause this is true once, for the one that tries.

        Who gets true has to report back with `record_success` or `record_failure`; if that
        never comes, another call may try after the same pause.
        """
        with self._guard:
            if not self._pause_s:
                return True
            now = self._clock()
            if now < self._open_until:
                return False
            self._open_until = now + self._pause_s
            return True

    @property
    def is_open(self) -> bool:
        """The last call failed: others are not made, or wait for the one that tries."""
        return self._pause_s > 0

    @property
    def reason(self) -> str:
        """Why the last call failed, "" after a success."""
        return self._reason

    def record_success(self) -> None:
        with self._guard:
            self._pause_s, self._reason = 0.0, ""

    def record_failure(self, reason: str) -> None:
        """Pause: each time twice as long, up to a limit."""
        with self._guard:
            self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
            self._open_until = self._clock() + self._pause_s
            self._reason = reason
