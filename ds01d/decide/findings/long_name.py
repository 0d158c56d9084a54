"""Containers whose name is too long for a metadata file."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import SHORT
from ds01d.model.books import LONGEST_RECORDED_NAME
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Holds, Verdicts


def long_name(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """Docker takes names of any length, a file does not: such a booking stands without a record."""
    for name, container in index.containers.items():
        # ds01d books it under its ID; a wrapper that looks for a name cannot find that booking.
        if container.is_unnamed:
            yield Finding(
                kind=FindingKind.LONG_NAME,
                container=name,
                slot=min(index.find_booked_slots(name), default=None),
                reason="it has no name, or one that is no use: it is called by its ID, until"
                f" docker rename {name[:SHORT]} NAME",
            )
    for name, verdict in verdicts.items():
        slots = verdict.slots if isinstance(verdict, Holds) else index.find_booked_slots(name)
        # Decision 134: cut, a name could be somebody else's.
        if len(name) <= LONGEST_RECORDED_NAME or index.is_derived(name):
            continue
        if index.containers.get(name) is not None and slots:
            yield Finding(
                kind=FindingKind.LONG_NAME,
                container=name,
                slot=min(slots),
                reason=f"its name has {len(name)} characters, a metadata file takes"
                f" {LONGEST_RECORDED_NAME}: booked without one, until it is renamed",
            )
