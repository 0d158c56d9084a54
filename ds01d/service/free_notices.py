"""Looks, after passes, whether there is room for who wants a notice of it. Books nothing.

For the worker's thread. Without a request it does nothing at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ds01d.config import Config
from ds01d.decide.notice_requests import find_answered
from ds01d.errors import Ds01Error
from ds01d.model.books import AllocatorState
from ds01d.model.notice import Notice
from ds01d.model.primitives import Boot
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.ports import World
from ds01d.service.notice_requests import NoticeRequests

# A look costs 0.4 ms for each request at 1,000 containers (decision 331).
LOOK_EVERY_S: Final = 30.0
_QUEUE_FIRST_S: Final = 2.0
_SAMPLE_AGE_S: Final = 60.0


class FreeNotices:
    """`requests`: None where no notice is given. `give`: gives one to its user."""

    def __init__(
        self,
        config: Config,
        world: World,
        requests: NoticeRequests | None,
        give: Callable[[Notice], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._world, self._requests, self._give, self._clock = world, requests, give, clock
        self._allocator = Allocator(world, config)
        # Decision 179: in mode observe ds01d books nothing, so there is nothing to be had.
        if config.daemon.mode == "observe":
            self._requests = None
        self._due_at, self._looked_at = math.inf, -math.inf

    def wait_s(self) -> float:
        """Seconds until the next look; inf where none is due."""
        return max(0.0, self._due_at - self._clock())

    def note_change(self) -> None:
        """Something has changed that may have freed a slot."""
        if self._requests is None or self._due_at != math.inf:
            return
        if self._requests.list_current():
            # After those who wait in the queue: they get the slot, and nobody is called for it.
            earliest = self._clock() + _QUEUE_FIRST_S
            self._due_at = max(earliest, self._looked_at + LOOK_EVERY_S)

    def look_if_due(self) -> str:
        """Give the notices of those who could be given a slot now; the failure, or ""."""
        if self._requests is None or self._clock() < self._due_at:
            return ""
        # First, so that a source that fails is asked again after the next pass, not in a loop.
        self._due_at, self._looked_at = math.inf, self._clock()
        try:
            self._look(self._requests)
        except Ds01Error as error:
            return f"no notice of free slots is given: {error}"
        return self._requests.take_failure()

    def _look(self, requests: NoticeRequests) -> None:
        current = requests.list_current()
        # On a full host, which is where they wait, nothing else is read.
        if not current or not self._has_free_slot():
            return
        now = self._world.clock.now()
        # Nothing is booked by it, so the sample of the last pass is new enough.
        asked = replace(now, boot=Boot(now.boot - _SAMPLE_AGE_S))
        answers = self._allocator.preview_requests(current, asked)
        answered = [*find_answered(current, answers)]
        for _, notice in answered:
            self._give(notice)
        # Given first (decision 260): a notice that a crash repeats is better than none.
        requests.remove([request for request, _ in answered])

    def _has_free_slot(self) -> bool:
        """Whether the books have a slot that nobody holds; True where they cannot be read."""
        state = self._world.state.read()
        return not isinstance(state, AllocatorState) or any(
            not slot.containers for slot in state.slots.values()
        )
