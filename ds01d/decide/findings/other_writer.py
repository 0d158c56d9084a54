"""Somebody who undoes our repairs."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.gate import PATIENCE
from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts


def other_writer(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """The same repair had to be made again and again: another writer is at work."""
    for (drift, _), repair in index.checkpoint.repairs.items():
        # Invariant 13: ds01d backs off by itself; only a person can stop the other one.
        if repair.times >= PATIENCE:
            yield Finding(
                kind=FindingKind.OTHER_WRITER,
                container=drift.container or None,
                slot=drift.slot or None,
                reason=f"{drift.kind} was repaired {repair.times} times,"
                " but another writer undoes the repair",
            )
