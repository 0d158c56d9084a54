"""When creations began, anchored in the first pass that sees them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ds01d.decide.deadlines import to_boot_time
from ds01d.model.books import Record
from ds01d.model.checkpoint import (
    AnchoredTime,
    Checkpoint,
)
from ds01d.model.containers import Engine
from ds01d.model.primitives import ContainerName, Unknown, Wall
from ds01d.model.snapshot import Snapshot


def anchor_creations(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint, names: Iterable[ContainerName]
) -> Iterator[tuple[str, AnchoredTime]]:
    """Creations that the last sweep did not see: they began after it, whatever the clock shows.

    An allocation counts only while there is no container, which would be better evidence.
    """
    # What an admin took back has an old `allocated_at` in its restored record; it must not look
    # like a creation that has just begun.
    taken_back = {
        name for undone_change in checkpoint.undone.values() for name in undone_change.records
    }
    operations = {} if isinstance(snapshot.operations, Unknown) else snapshot.operations
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    for name in names:
        attempt, record = operations.get(name), records.get(name)
        if attempt is not None and attempt.latest_start is not None:
            key = f"pending|{name}"
            yield from _anchor_start(
                key, str(attempt.started), attempt.latest_start, snapshot, checkpoint
            )
        absent = name not in engine.by_name and name not in taken_back
        if absent and isinstance(record, Record) and record.allocated_at is not None:
            text = record.allocated_text or str(record.allocated_at)
            yield from _anchor_start(
                f"allocated|{name}", text, record.allocated_at, snapshot, checkpoint
            )


def _anchor_start(
    key: str, anchor: str, at: Wall, snapshot: Snapshot, checkpoint: Checkpoint
) -> Iterator[tuple[str, AnchoredTime]]:
    anchored = checkpoint.starts.get(key)
    if anchored is None or anchored.anchor != anchor:
        # After a lost checkpoint or a reboot, an old creation looks like a new one; the later
        # time only prolongs a protection.
        is_forgotten = checkpoint.swept_at is None and checkpoint.acquainted
        not_before = snapshot.now.boot if is_forgotten else checkpoint.swept_at
        yield key, AnchoredTime(anchor=anchor, at=to_boot_time(at, snapshot, not_before))
