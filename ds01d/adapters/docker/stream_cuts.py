"""Detects a proxy that keeps cutting the stream of events. Pure.

A proxy with an idle timeout does that (nginx 60 s, HAProxy as in docker-socket-proxy 10 min): its
streams end while the engine is running, and can be opened again at once.
"""

from __future__ import annotations

from collections import deque

_MIN_CUTS = 3
_MAX_INTERVAL_S = 1800.0  # a stream that is cut more rarely is no problem


class StreamCuts:
    """The lifetimes in seconds of the last streams that were cut."""

    def __init__(self) -> None:
        self._lifetimes: deque[float] = deque(maxlen=_MIN_CUTS)

    def record_cut(self, lifetime_s: float) -> None:
        """A stream was cut after `lifetime_s`, and another one is open."""
        self._lifetimes.append(lifetime_s)

    def clear(self) -> None:
        """The engine was unreachable, or ds01d broke the stream: that was no proxy's cut."""
        self._lifetimes.clear()

    def interval_s(self, open_s: float) -> float | None:
        """How often the stream is cut; None if it is not cut again and again.

        `open_s`: for how long it has been open now; 0 while it is not.
        """
        # The longest: a timeout cuts no stream sooner, other causes do.
        longest_s = max(self._lifetimes, default=0.0)
        is_repeated = len(self._lifetimes) == _MIN_CUTS and longest_s <= _MAX_INTERVAL_S
        # A timeout limits every stream: one that lives twice as long shows that it is gone.
        if not is_repeated or open_s > 2 * longest_s + 5.0:
            return None
        return longest_s
