"""Stopped containers that keep their slots past the end of their hold."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.decide.owner_guess import describe_guess
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Holds, VerdictReason, Verdicts


def overdue_hold(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """The hold is over, and an administrator has not decided that its slots are released then."""
    for name, verdict in verdicts.items():
        if not isinstance(verdict, Holds) or verdict.why is not VerdictReason.OVERDUE:
            continue
        slots, whose = sorted(verdict.slots), describe_guess(index.find_owner(name))
        yield Finding(
            kind=FindingKind.OVERDUE_HOLD,
            container=name,
            slot=min(slots, default=None),
            reason=f"its hold after the stop is over, and it keeps {', '.join(slots)}"
            f' (policy.expired_holds = "report"): docker rm {name}{whose}',
        )
