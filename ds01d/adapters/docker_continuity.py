"""Since when Docker has answered without a gap, and by which process. For several threads.

Waiting times count only while Docker answers, and a 404 proves an absence only if the engine that
gives it is the one that was seen. What is a gap is for `docker_engine` to say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ds01d.model.facts import Boot


class Continuity:
    """`since` begins at 0: a process that starts knows of no gap."""

    def __init__(self, clock_boot: Callable[[], float]) -> None:
        self._clock_boot = clock_boot
        self._lock = threading.Lock()
        self._since: Boot | None = Boot(0.0)
        self._answered: Boot | None = None
        self._instance: str | None = None

    @property
    def instance(self) -> str:
        """The process that gave the last list."""
        return self._instance or ""

    def broke(self) -> None:
        """Something may have been missed just now."""
        with self._lock:
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
            self._answered = self._since
            return self._since

    def holds(self, instance: str) -> bool:
        """Whether an answer of this process belongs to the last whole one, without a gap between.

        True as long as there was none.
        """
        with self._lock:
            unbroken = self._answered is None or self._answered == self._since
            return unbroken and self._instance in {None, instance}
