"""Somebody who undoes our repairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.gate import PATIENCE
from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdict
from ds01d.model.primitives import ContainerName, SlotId


def other_writer(index: BooksIndex, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """The same repair had to be made again and again: another writer is at work."""
    for key, repair in index.checkpoint.repairs.items():
        if repair.times >= PATIENCE:
            kind, name, slot, _ = (*key.split("|", 3), "", "", "")[:4]
            yield Finding(
                kind=FindingKind.OTHER_WRITER,
                container=ContainerName(name) if name else None,
                slot=SlotId(slot) if slot else None,
                reason=f"{kind} was repaired {repair.times} times,"
                " but another writer undoes the repair",
            )
