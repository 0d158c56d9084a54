"""When lines of the operations log that their copies have not taken yet are sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Final

from ds01d.model.primitives import Boot

LONGEST_PAUSE_S: Final = 5.0


class CopiesFlush:
    """Decision 122: the file never waits for its copies, so their lines are queued and sent later.

    `flush` sends what it can: whether all is sent, and what went wrong since the last call.
    """

    def __init__(
        self, flush: Callable[[], tuple[bool, Sequence[str]]], boot: Callable[[], Boot]
    ) -> None:
        self._flush, self._boot = flush, boot
        self._pause_s = 0.0
        self.next_at = inf
        """On CLOCK_BOOTTIME."""

    def request(self) -> None:
        """There are new lines: send them at once."""
        self.next_at = 0.0

    def run_if_due(self) -> Iterator[str]:
        """Send queued lines, with growing pauses while a copy takes nothing; gives the problems."""
        if self._boot() < self.next_at:
            return
        is_empty, problems = self._flush()
        self._pause_s = 0.0 if is_empty else min(2 * self._pause_s + 0.1, LONGEST_PAUSE_S)
        self.next_at = inf if is_empty else self._boot() + self._pause_s
        yield from problems
