"""What an undo leaves behind: its history entry, and the checkpoint that guards it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ds01d.decide.booking_ages import follow_changes
from ds01d.decide.renames import follow_renames
from ds01d.decide.undo_choice import Reversal
from ds01d.model.actor import Actor
from ds01d.model.books import BadRecord, Record
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.history import UNDO, Entry, Phase
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Unknown
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile import history


def build_entry(
    entry: str, reversal: Reversal, snapshot: Snapshot, by: str, actor: Actor | None
) -> Entry:
    first = reversal.undoes[0]
    return Entry(
        id=entry,
        at=history.format_utc(snapshot.now),
        phase=Phase.BEGIN,
        # Under the kind of what it takes back, so that a filter by kind shows both.
        kind=first.kind,
        action=UNDO,
        container=first.container,
        slot=first.slot,
        reason=f"takes back {', '.join(undone.id for undone in reversal.undoes)}",
        before=reversal.before,
        after=reversal.after,
        boot_id=snapshot.now.boot_id,
        boot=snapshot.now.boot,
        change=entry,
        fingerprint=first.fingerprint,
        taken=tuple(sorted(reversal.taken)),
        given=tuple(sorted(reversal.given)),
        containers=reversal.containers,
        undoes=tuple(undone.id for undone in reversal.undoes),
        by=by,
        actor=actor,
        homes=_names_after_undo(reversal),
    )


def _names_after_undo(reversal: Reversal) -> Mapping[ContainerName, str]:
    """The container ID of each name after the undo of renames; see `Entry.homes`."""
    renames = [undone for undone in reversal.undoes if undone.homes]
    if any(undone.undoes for undone in renames):  # it is followed again
        now = reversal.containers
        names = frozenset().union(*(undone.names for undone in renames))
        return {name: was.id if was.state else "" for name, was in now.items() if name in names}
    return {
        # Decision 68: the fingerprint of a rename begins with the ID of its container.
        ContainerName(undone.container): undone.fingerprint.partition("|")[0]
        for undone in renames
        if undone.container is not None
    }


def guard_undone(checkpoint: Checkpoint, reversal: Reversal, entry: Entry) -> Checkpoint:
    """The checkpoint with the guard of this undo, and without those that it undoes."""
    # Undoing an undo lets go of what that undo guarded.
    gone = {undone.id for undone in reversal.undoes}
    undone = {
        entry_id: hold for entry_id, hold in checkpoint.undone.items() if entry_id not in gone
    }
    if reversal.hold is not None:
        undone[entry.id] = reversal.hold
    appeared = follow_changes(
        checkpoint.appeared, reversal.taken, reversal.given, moved={}, at=Boot(entry.boot)
    )
    return replace(checkpoint, undone=undone, appeared=appeared)


def complete_checkpoint(
    checkpoint: Checkpoint,
    reversal: Reversal,
    entry: str,
    metadata: Mapping[ContainerName, Record | BadRecord] | Unknown,
) -> Checkpoint:
    """The checkpoint with the devices of the slots and the digests of the records, as written."""
    # A slot without a UUID in the file means its remembered device; the repair that is undone had
    # changed that.
    devices = {slot: device for slot, device in reversal.restored.items() if device is not None}
    slots = {**checkpoint.slots, **devices}
    undone = dict(checkpoint.undone)
    hold = undone.get(entry)
    if hold is not None and not isinstance(metadata, Unknown):
        records = {name: metadata.get(name) for name in hold.records}
        # The digests of the files as this undo wrote them: a later change of one has made
        # another record, which is no longer guarded.
        digests = {n: None if record is None else record.digest for n, record in records.items()}
        undone[entry] = replace(hold, records=digests)
    homes = {
        name: ContainerId(bearer) or None for name, bearer in _names_after_undo(reversal).items()
    }
    return follow_renames(replace(checkpoint, slots=slots, undone=undone), homes)


def find_user_and_priority(name: ContainerName, snapshot: Snapshot) -> tuple[str, int]:
    """The user and the priority of a booking, for the logs."""
    metadata = snapshot.metadata
    record = None if isinstance(metadata, Unknown) else metadata.get(name)
    if not isinstance(record, Record):
        return "unknown", 0
    return record.user or "unknown", record.priority or 0
