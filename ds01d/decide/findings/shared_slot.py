"""Slots that several containers hold."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts


def shared_slot(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """More than one holder: a full pool is shared, or one slot was given out twice."""
    for slot in index.table.slots.values():
        # A container that is listed twice is a drift (duplicate-allocation), not a second holder.
        holders = tuple(dict.fromkeys(slot.containers))
        if len(holders) > 1:
            yield Finding(
                kind=FindingKind.SHARED_SLOT,
                container=None,
                slot=slot.id,
                reason=f"held by {len(holders)} containers: {', '.join(holders)}",
            )
