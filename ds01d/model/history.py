"""The history: changes of the books, with before, after and evidence. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ds01d.model.actor import Actor
from ds01d.model.books import Slot
from ds01d.model.primitives import BookingId, ContainerName, DeviceUuid, SlotId, Word

UNDO = "undo"  # the action of an entry that undid others

HistoryPlace = tuple[int, int]
"""A place in the history: the inode of its file, and how many bytes come before."""


class Phase(Word):
    """A change is entered (begin) before it is made, and closed (done, failed) after."""

    BEGIN = "begin"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """A slot as it was in the state file.

    `text`: its JSON, if more than its bookings changed; `device`: the device behind it.
    """

    containers: tuple[str, ...]
    users: Mapping[str, int]
    uuid: str | None = None
    profile: str | None = None
    text: str = ""
    device: DeviceUuid | None = None

    def matches(self, slot: Slot | None) -> bool:
        """The slot has the same bookings, UUID and profile."""
        return slot is not None and (
            (tuple(slot.containers), dict(slot.users), slot.uuid, slot.profile)
            == (tuple(self.containers), dict(self.users), self.uuid, self.profile)
        )


def record_slot(
    slot: Slot | None, text: str = "", device: DeviceUuid | None = None
) -> SlotRecord | None:
    """The record of a slot for an entry."""
    if slot is None:
        return None
    return SlotRecord(
        containers=tuple(slot.containers),
        users=dict(slot.users),
        uuid=slot.uuid,
        profile=slot.profile,
        text=text,
        device=device,
    )


def matches_record(slot: Slot | None, record: SlotRecord | None) -> bool:
    """The slot is unchanged since the record; None stands for no such slot."""
    return slot is None if record is None else record.matches(slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksState:
    """The books on one side of a change; None: there was no such slot or record.

    `broken`: the digest of a state that could not be read; `mig_enabled` where the table changed.
    """

    slots: Mapping[str, SlotRecord | None] = field(default_factory=dict)
    metadata: Mapping[str, str | None] = field(default_factory=dict)
    broken: str = ""
    mig_enabled: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFingerprint:
    """The container behind a name. `state` "": no container has it; `id` "": not known.

    `since`: Docker's time of its last start or end.
    """

    id: str = ""
    state: str = ""
    since: float | None = None

    @property
    def alive(self) -> bool:
        return self.state == "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the history. A closing line repeats only the id.

    `change`: the first entry of a group that was made, and is undone, as one (decision 33).
    `taken`, `given`: the bookings (container, slot) that it removed and added. `undoes`: the
    entries that it undid; `by`: who asked for it; `actor`: the process that did it, None in old
    entries. `booking`: the allocation that it made, changed or ended, if it has an ID. `homes`:
    after a rename, the container ID behind each name; "" if no container has it.
    """

    id: str
    at: str
    phase: Phase
    kind: str = ""
    action: str = ""
    container: str | None = None
    slot: str | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()
    before: BooksState | None = None
    after: BooksState | None = None
    boot_id: str = ""
    boot: float = 0.0
    change: str = ""
    fingerprint: str = ""
    taken: tuple[tuple[ContainerName, SlotId], ...] = ()
    given: tuple[tuple[ContainerName, SlotId], ...] = ()
    containers: Mapping[ContainerName, ContainerFingerprint] = field(default_factory=dict)
    undoes: tuple[str, ...] = ()
    by: str = ""
    actor: Actor | None = None
    booking: BookingId | None = None
    homes: Mapping[ContainerName, str] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[BooksState, ...]:
        return tuple(side for side in (self.before, self.after) if side is not None)

    @property
    def names(self) -> frozenset[ContainerName]:
        """The containers whose books it changed."""
        names = {ContainerName(name) for side in self.sides for name in side.metadata}
        names |= {name for name, _ in (*self.taken, *self.given)}
        if self.container is not None:
            names.add(ContainerName(self.container))
        return frozenset(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """An entry and how it was closed; None: its pass was killed before that."""

    entry: Entry
    closed: Phase | None = None
    failure: str = ""

    @property
    def done(self) -> bool:
        return self.closed is Phase.DONE
