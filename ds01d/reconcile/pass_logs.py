"""Appends the repairs of a pass to the operations log and the allocations log.

Decides nothing. A log that cannot be written is a warning of the report.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ds01d.decide.decision import Decision
from ds01d.errors import Ds01Error
from ds01d.model.books import LogLine
from ds01d.model.drift import Drift
from ds01d.model.primitives import ContainerName, SlotId, Wall
from ds01d.reconcile.ports import World
from ds01d.reconcile.repair import RepairResult

WRITER = "ds01d"


class PassLogs:
    """Appends a line for each changed booking, and one for each drift."""

    def __init__(self, world: World) -> None:
        self._world = world

    def append_lines(self, decision: Decision, result: RepairResult) -> list[str]:
        """Log what was written, also by repairs that failed later; gives the failures."""
        failures: dict[str, None] = {}
        at = self._world.clock.now().wall
        # Also what was written and failed later (metadata, verification): the booking did change.
        for drift in dict.fromkeys((*result.done, *result.written)):
            for event, bookings in (
                # A slot that is taken and given back in one repair has not changed hands.
                ("RELEASED", drift.taken - drift.given),
                ("ALLOCATED", drift.given - drift.taken),
            ):
                for name, slot in sorted(bookings):
                    line = partial(self._log_allocation, decision, drift, at=at, event=event)
                    collect_error(partial(line, name=name, slot=slot), failures)
            failed = result.failed.get(drift.key)
            collect_error(
                partial(self._log_operation, decision, drift, at=at, failed=failed), failures
            )
        return list(failures)

    def _log_allocation(
        self,
        decision: Decision,
        drift: Drift,
        *,
        at: Wall,
        event: str,
        name: ContainerName,
        slot: SlotId,
    ) -> None:
        index = decision.index
        # Decision 67: what is released under the old name was booked for the container that has the
        # new one, so its record has the priority.
        if index is not None and event == "RELEASED" and drift.renamed_to is not None:
            record, user = index.find_record(drift.renamed_to), index.find_booker(name)
        else:
            record = index.find_record(name) if index is not None else None
            user = index.find_user(name) if index is not None else None
        self._world.allocations.append(
            at=at,
            event=event,
            user=user or "unknown",
            container=name,
            gpu=slot,
            priority=record.priority if record is not None and record.priority is not None else 0,
            reason=f"{WRITER}: {drift.kind}: {drift.reason}",
        )

    def _log_operation(
        self, decision: Decision, drift: Drift, *, at: Wall, failed: str | None
    ) -> None:
        name = drift.container
        index = decision.index
        user = index.find_booker(name) if index is not None and name is not None else None
        self._world.operations.append(
            LogLine(
                at=at,
                operation=drift.action.value,
                # Decision 136: the columns are facts. A drift of the slot table is nobody's.
                user=user or "system",
                container=name or "N/A",
                gpu=drift.slot or "N/A",
                status="done" if failed is None else "failed",
                details=f"{WRITER}: {drift.kind}: {drift.reason}"
                + ("" if failed is None else f": {failed}"),
                actor=self._world.actor,
            )
        )


def collect_error(action: Callable[[], None], failures: dict[str, None]) -> None:
    """Run `action`; on failure add the reason to `failures`."""
    try:
        action()
    except Ds01Error as error:
        # Invariant 9: logs decide nothing. A full disk fails for each line with one reason, which
        # is reported once.
        failures[str(error)] = None
