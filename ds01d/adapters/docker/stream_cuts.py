"""Whether the stream of events keeps being cut by something between us and the engine. Pure.

A proxy with an idle timeout does that (nginx 60 s, HAProxy as in docker-socket-proxy 10 min): its
streams end while the engine is well, and are opened again at once.
"""

from __future__ import annotations

from collections import deque

_REPEATED = 3
_LONGEST_S = 1800.0  # who ends a stream once in a while does not keep cutting it


class StreamCuts:
    """How long the last streams lived that something cut, in seconds."""

    def __init__(self) -> None:
        self._lived: deque[float] = deque(maxlen=_REPEATED)

    def reopened(self, lived_s: float) -> None:
        """A stream that lived so long was cut, and another one is open."""
        self._lived.append(lived_s)

    def forget(self) -> None:
        """The engine itself was away, or this end broke the stream: that is another matter."""
        self._lived.clear()

    def interval_s(self, open_s: float) -> float | None:
        """How often it is cut, if it is again and again. A stream that lives twice as long ends it.

        `open_s`: for how long there has been one now; 0 while there is none.
        The longest of the last lives: each stream lives that long at most.
        """
        longest = max(self._lived, default=0.0)
        repeated = len(self._lived) == _REPEATED and longest <= _LONGEST_S
        if not repeated or open_s > 2 * longest + 5.0:
            return None
        return longest
