"""Since when Docker has answered without a gap, and by which process. For several threads.

Waiting times count only while Docker answers, and a 404 proves an absence only if the engine that
gives it is the one that was seen. What is a gap is for `docker_engine` to say.

A stream of events that was cut is a gap only if it cannot be bridged. Until that is known, and a
list was made after it, nothing can be proven (`holds`); but no time is lost (`since`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ds01d.model.primitives import Boot


class GapTracker:
    """`since` begins at 0: a process that starts knows of no gap."""

    def __init__(self, clock_boot: Callable[[], float]) -> None:
        self._clock_boot = clock_boot
        self._lock = threading.Lock()
        self._since: Boot | None = Boot(0.0)
        self._answered: Boot | None = None
        self._broken = False  # the stream; until it is known whether that can be bridged
        self._to_be_listed = False  # since the stream broke
        self._instance: str | None = None

    @property
    def instance(self) -> str:
        """The process that gave the last list."""
        return self._instance or ""

    def stream_broke(self) -> None:
        """Something may have been missed from now on, if it cannot be bridged."""
        with self._lock:
            self._broken = self._to_be_listed = True

    def bridged(self) -> None:
        """Nothing was missed since the stream broke; the list that follows has to agree."""
        with self._lock:
            self._broken = False

    def missed(self) -> None:
        """Something may have been missed until just now."""
        with self._lock:
            self._broken = False
            if self._since is not None:
                self._since = Boot(self._clock_boot())

    def failed(self) -> None:
        """Docker does not answer: time begins anew with its next answer."""
        with self._lock:
            self._since = None

    def met(self, instance: str) -> bool:
        """A process gave a list. Whether it is another one than before."""
        with self._lock:
            before, self._instance = self._instance, instance
            if before is not None and before != instance:
                self._since = None
            return before != instance

    def answered(self) -> Boot:
        """A whole answer is there; since when there has been no gap."""
        with self._lock:
            if self._since is None:
                self._since = Boot(self._clock_boot())
            self._to_be_listed &= self._broken
            self._answered = self._since
            return self._since

    def holds(self, instance: str) -> bool:
        """Whether an answer of this process belongs to the last whole one, without a gap between.

        True as long as there was none.
        """
        with self._lock:
            unbroken = self._answered is None or self._answered == self._since
            return unbroken and not self._to_be_listed and self._instance in {None, instance}
