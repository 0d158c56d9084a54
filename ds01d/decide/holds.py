"""What a container holds by the books. Pure."""

from __future__ import annotations

from ds01d.decide.index import BooksIndex
from ds01d.model.holding import Holds, VerdictReason
from ds01d.model.primitives import (
    Boot,
    ContainerName,
    SlotId,
)


def make_holds(
    name: ContainerName,
    slots: frozenset[SlotId],
    why: VerdictReason,
    index: BooksIndex,
    *evidence: str,
    until: Boot | None = None,
) -> Holds:
    return Holds(slots=slots, user=index.find_user(name), why=why, evidence=evidence, until=until)


def find_recorded_slot(name: ContainerName, index: BooksIndex) -> frozenset[SlotId]:
    """The slot in the metadata, if the table has it."""
    record = index.find_record(name)
    if record is None or record.gpu_id is None:
        return frozenset()
    slot = index.table.moved.get(record.gpu_id, record.gpu_id)
    return frozenset((slot,)) if slot in index.table.slots else frozenset()
