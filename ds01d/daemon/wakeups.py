"""When each container is due for another pass, by the decisions of the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ds01d.daemon.dirty_set import EVERYTHING, Names
from ds01d.model.drift import Outcome
from ds01d.model.primitives import Boot, ContainerName
from ds01d.reconcile.report import Report

TOGETHER_S: Final = 0.005
_HOST: Final = ContainerName("")  # stands for the host as a whole


class Wakeups:
    """The next moment of each name that has one. Begins with none."""

    def __init__(self) -> None:
        self._at: dict[ContainerName, Boot] = {}

    def add_report(self, report: Report) -> None:
        """Replace the moments of the names that a pass looked at."""
        # What the pass did not look at keeps its moment.
        self._at = {name: at for name, at in self._at.items() if not report.covers(name)}
        self._at.update(report.decision.recheck_at)
        for gated in report.drifts:  # postponed repairs are not in the decision
            if gated.outcome is Outcome.WAITING and gated.until is not None and gated.until > 0:
                name = gated.drift.container or _HOST
                self._at[name] = min(gated.until, self._at.get(name, gated.until))

    def __iter__(self) -> Iterator[Boot]:
        """All moments, in no order."""
        return iter(self._at.values())

    def next_wakeup(self, now: Boot) -> tuple[float, Names] | None:
        """In how many seconds (negative: it has passed) whom to look at next; None for nobody.

        All whose moment has passed go together: one by one they would wait for each other.
        """
        if not self._at:
            return None
        first = min(self._at.values())
        # Moments that were counted from one observation differ by microseconds: one pass is enough
        # for them.
        by = max(first, now) + TOGETHER_S
        names = frozenset(name for name, moment in self._at.items() if moment <= by)
        return first - now, EVERYTHING if _HOST in names else names
