"""Since when Docker has answered without a gap, and by which process. For several threads.

Waiting times count only while Docker answers, and a 404 proves an absence only if the engine that
gives it is the one that was listed. What counts as a gap is decided in `engine`.

A stream of events that broke is a gap only if it cannot be bridged. Until that is known, and a list
was made after it, no absence can be proven (`is_continuous`), but waiting times go on (`since`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ds01d.model.primitives import Boot


class GapTracker:
    """`since` begins at 0: a process that starts has seen no gap."""

    def __init__(self, clock_boot: Callable[[], float]) -> None:
        self._clock_boot = clock_boot
        self._lock = threading.Lock()
        self._since: Boot | None = Boot(0.0)
        self._since_at_answer: Boot | None = None
        self._is_broken = False  # the stream broke, and was neither bridged nor given up yet
        self._needs_list = False  # no list since the stream broke
        self._instance: str | None = None

    @property
    def instance(self) -> str:
        """The process that gave the last list."""
        return self._instance or ""

    def record_break(self) -> None:
        """The stream broke: from now on events are missed, if it cannot be bridged."""
        with self._lock:
            self._is_broken = self._needs_list = True

    def record_bridge(self) -> None:
        """No event was missed since the stream broke; the next list has to confirm it."""
        with self._lock:
            self._is_broken = False

    def record_gap(self) -> None:
        """Events may have been missed until now."""
        with self._lock:
            self._is_broken = False
            # Docker did not answer meanwhile: its next answer sets the later time anyway.
            if self._since is not None:
                self._since = Boot(self._clock_boot())

    def record_failure(self) -> None:
        """Docker did not answer: `since` is set again by its next answer."""
        with self._lock:
            self._since = None

    def record_instance(self, instance: str) -> bool:
        """A process gave a list. True if it is another process than the one before."""
        with self._lock:
            previous, self._instance = self._instance, instance
            # Another dockerd process may have started containers before it answered.
            if previous is not None and previous != instance:
                self._since = None
            return previous != instance

    def record_answer(self) -> Boot:
        """A pass has a complete answer; since when there has been no gap."""
        with self._lock:
            if self._since is None:
                self._since = Boot(self._clock_boot())
            # A list confirms a bridge; while the stream is broken it confirms nothing.
            self._needs_list &= self._is_broken
            self._since_at_answer = self._since
            return self._since

    def is_continuous(self, instance: str) -> bool:
        """No gap lies between the last complete answer and one of this process now.

        True while there was no complete answer.
        """
        with self._lock:
            unbroken = self._since_at_answer is None or self._since_at_answer == self._since
            return unbroken and not self._needs_list and self._instance in {None, instance}
