"""The two logs of a booking: gpu-allocations.log and the operations log, which names the actor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ds01d.errors import Ds01Error
from ds01d.model.allocation import Rejected
from ds01d.model.books import LogLine
from ds01d.reconcile.books_ports import BooksWorld


class BookingLogs:
    """Appends what the allocator did, or refused, to the logs of one world."""

    def __init__(self, world: BooksWorld) -> None:
        self._world = world

    def append(
        self,
        event: str,
        user: str,
        container: str,
        gpu: str,
        *,
        priority: int,
        reason: str,
        operation: str,
    ) -> tuple[str, ...]:
        """Append to both logs; gives the failures."""
        world, at = self._world, self._world.clock.now().wall
        allocation = partial(world.allocations.append, at=at, event=event, user=user, gpu=gpu)
        line = LogLine(
            at=at,
            operation=operation,
            user=user,
            container=container,
            gpu=gpu or "N/A",
            status="refused" if event == "REJECTED" else "success",
            details=reason,
            actor=world.actor,
        )
        return (
            *_collect_error(
                partial(allocation, container=container, priority=priority, reason=reason)
            ),
            *_collect_error(partial(world.operations.append, line)),
        )

    def append_refusal(self, answer: Rejected, priority: int) -> Rejected:
        """Append that nothing was booked; gives the answer with the failures as warnings."""
        failures = self.append(
            "REJECTED",
            answer.user,
            answer.container,
            "",
            priority=priority,
            reason=answer.reason,
            operation="allocate",
        )
        return replace(answer, warnings=(*answer.warnings, *failures))


def _collect_error(append: Callable[[], None]) -> tuple[str, ...]:
    """The failure of `append` as a tuple of none or one."""
    # The booking is written by now: a log that cannot be written does not take it back.
    try:
        append()
    except Ds01Error as error:
        return (str(error),)
    return ()
