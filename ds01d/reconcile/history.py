"""The history: what was done to the books, with before, after and evidence. A book too.

A change is entered ("begin") before it is made and closed ("done", "failed") after. An entry that
was never closed belongs to a pass that was killed: the change was made or not made, and the next
pass looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum

import msgspec

from ds01d.decide.books import Books
from ds01d.model.drift import Drift
from ds01d.model.facts import ContainerName, Now, SlotId
from ds01d.model.records import AllocatorState, Slot
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile.ports import MetadataBook, StateDir


class Phase(str, Enum):
    BEGIN = "begin"
    DONE = "done"
    FAILED = "failed"


class SlotWas(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A slot as the state has it."""

    containers: list[str]
    users: dict[str, int]
    uuid: str | None = None


class Side(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The books on one side of a change; None stands for what is not there."""

    slots: dict[str, SlotWas | None] = {}
    metadata: dict[str, str | None] = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the history. A closing line repeats only the id."""

    id: str
    at: str
    phase: Phase
    kind: str = ""
    action: str = ""
    container: str | None = None
    slot: str | None = None
    reason: str = ""
    evidence: list[str] = []
    before: Side | None = None
    after: Side | None = None
    boot_id: str = ""
    boot: float = 0.0


def begin(
    own: StateDir,
    seen: Snapshot,
    due: Sequence[Drift],
    books: Books,
    metadata: MetadataBook,
    *,
    first: int = 0,
) -> Sequence[str]:
    """Enter what is about to be done, durably; an id for each drift. Raises `HistoryFailed`.

    `first`: how many entries this pass has made before.
    """
    entries = [
        _entry(f"{int(seen.now.wall * 1000):x}-{number}", drift, seen, books, metadata)
        for number, drift in enumerate(due, start=first)
    ]
    own.append_history([msgspec.json.encode(entry) for entry in entries])
    return [entry.id for entry in entries]


def close(own: StateDir, now: Now, outcomes: Mapping[str, str | None]) -> None:
    """Close entries: id → why it failed, or None if it was done. Raises `HistoryFailed`."""
    own.append_history(
        [
            msgspec.json.encode(
                Entry(
                    id=entry,
                    at=_utc(now),
                    phase=Phase.DONE if failed is None else Phase.FAILED,
                    reason=failed or "",
                )
            )
            for entry, failed in outcomes.items()
        ]
    )


def read(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Entries of a history file, oldest first; a line that was cut short by a crash is left out."""
    for line in lines:
        entry = _understood(line)
        if entry is not None:
            yield entry


_decoder = msgspec.json.Decoder(Entry)


def _understood(line: bytes) -> Entry | None:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _entry(entry: str, drift: Drift, seen: Snapshot, books: Books, metadata: MetadataBook) -> Entry:
    slots = {slot for _, slot in drift.taken | drift.given}
    if drift.slot is not None:
        slots.add(drift.slot)
    names = {name for name, _ in drift.taken | drift.given}
    if drift.container is not None:
        names.add(drift.container)
    changes = {change.name: change.record for change in books.records if change.name in names}
    state = seen.state if isinstance(seen.state, AllocatorState) else None
    return Entry(
        id=entry,
        at=_utc(seen.now),
        phase=Phase.BEGIN,
        kind=drift.kind.value,
        action=drift.action.value,
        container=drift.container,
        slot=drift.slot,
        reason=drift.reason,
        evidence=list(drift.evidence),
        before=Side(
            slots=_slots(state, slots),
            metadata={name: metadata.text(name) for name in sorted(changes)},
        ),
        after=Side(
            slots=_slots(books.state or state, slots),
            metadata={
                name: None if record is None else _told(record) for name, record in changes.items()
            },
        ),
        boot_id=seen.now.boot_id,
        boot=seen.now.boot,
    )


def _told(record: object) -> str:
    return msgspec.json.encode(record).decode()


def _slots(state: AllocatorState | None, ids: set[SlotId]) -> dict[str, SlotWas | None]:
    if state is None:
        return {}
    return {name: _was(state.slots.get(name)) for name in sorted(ids)}


def _was(slot: Slot | None) -> SlotWas | None:
    if slot is None:
        return None
    return SlotWas(containers=list(slot.containers), users=dict(slot.users), uuid=slot.uuid)


def _utc(now: Now) -> str:
    return datetime.fromtimestamp(now.wall, tz=timezone.utc).isoformat(timespec="milliseconds")


def names_in(entry: Entry) -> frozenset[ContainerName]:
    """The containers that an entry is about."""
    sides = [side for side in (entry.before, entry.after) if side is not None]
    names = {name for side in sides for name in side.metadata}
    if entry.container is not None:
        names.add(entry.container)
    return frozenset(ContainerName(name) for name in names)
