"""Drift: differences between the books and what they should be; and findings to report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ds01d.model.primitives import Boot, ContainerName, SlotId, UserName, Wall, Word


class Kind(Word):
    """The kinds of drift: names only, no behaviour depends on them."""

    STALE_ALLOCATION = "stale-allocation"
    EXPIRED_HOLD = "expired-hold"
    ORPHANED_METADATA = "orphaned-metadata"
    MISSING_METADATA = "missing-metadata"
    WRONG_METADATA = "wrong-metadata"
    UNTRACKED_CONTAINER = "untracked-container"
    LOST_ALLOCATION = "lost-allocation"
    WRONG_SLOT = "wrong-slot"
    DUPLICATE_ALLOCATION = "duplicate-allocation"
    WRONG_COUNT = "wrong-count"
    RENAMED_CONTAINER = "renamed-container"
    STALE_SLOT = "stale-slot"
    VANISHED_SLOT = "vanished-slot"
    UNREADABLE_STATE = "unreadable-state"
    UNREADABLE_METADATA = "unreadable-metadata"


class Action(Word):
    """How repairing a drift changes the books."""

    RELEASE = "release"
    BOOK = "book"
    MOVE = "move"
    RECOUNT = "recount"
    WRITE_METADATA = "write-metadata"
    REMOVE_METADATA = "remove-metadata"
    UPDATE_SLOT = "update-slot"
    REMOVE_SLOT = "remove-slot"
    REBUILD = "rebuild"
    NOTHING = "none"


class Outcome(Word):
    """The state of a drift after the gate, or after its repair."""

    DUE = "due"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"

    @classmethod
    def _missing_(cls, value: object) -> Outcome | None:
        """Read a status that a version before 0.1.0 published: it calls waiting held."""
        return cls.WAITING if value == "held" else None


class DriftKey(NamedTuple):
    """Identifies a drift from pass to pass: what it is, and where ("" = not about one).

    `kind` is text: a checkpoint of another version may have kinds that this one does not know.
    """

    kind: str
    container: ContainerName
    slot: SlotId

    def __str__(self) -> str:
        return " ".join(part for part in self if part)


class RepairKey(NamedTuple):
    """Identifies the repair of one drift; with another `fingerprint` it is another repair."""

    drift: DriftKey
    fingerprint: str


def drift_key(kind: str, container: ContainerName | None, slot: SlotId | None) -> DriftKey:
    """The key of a drift that may be about no container or no slot."""
    return DriftKey(kind, container or ContainerName(""), slot or SlotId(""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference. `container` or `slot` is None where the drift is not about one.

    `earliest`: not due before this moment regardless of the gate (end of a proof or a retention).
    `first_seen`: since when the drift exists, if that is before this pass.
    `taken`, `given`: the bookings (container, slot) that the repair removes and adds.
    `reported`: what the removals follow from is reported, not inferred, so they are not paced: a
    `destroy` event, the stop of a container that keeps nothing after it, the end of the process for
    which there was nothing but a reservation.
    `urgent`: no settle time (bookings merged from a file that ds01d replaced).
    `blocked`: why it cannot be repaired for now; the drift then waits.
    `fingerprint`: changes when it is no longer the same drift.
    `renamed_to`: the name that the container behind the bookings of `container` has now.
    """

    kind: Kind
    action: Action
    container: ContainerName | None
    slot: SlotId | None
    reason: str
    evidence: tuple[str, ...]
    fingerprint: str
    earliest: Boot | None = None
    first_seen: Boot | None = None
    taken: frozenset[tuple[ContainerName, SlotId]] = frozenset()
    given: frozenset[tuple[ContainerName, SlotId]] = frozenset()
    # Invariant 6: what Docker reported itself is no mistake of ours, and is not paced.
    reported: bool = False
    # Bookings that our own write lost: each moment without them may give the slot away.
    urgent: bool = False
    blocked: str | None = None
    renamed_to: ContainerName | None = None

    @property
    def names(self) -> frozenset[ContainerName]:
        """The containers whose books it changes."""
        also = (name for name in (self.container, self.renamed_to) if name is not None)
        return frozenset((*(name for name, _ in self.taken | self.given), *also))

    @property
    def key(self) -> DriftKey:
        return drift_key(self.kind, self.container, self.slot)

    @property
    def repair_key(self) -> RepairKey:
        return RepairKey(self.key, self.fingerprint)

    @property
    def takes(self) -> bool:
        """Takes something away: a booking, or metadata."""
        return bool(self.taken or self.renamed_to) or self.action is Action.REMOVE_METADATA

    @property
    def is_paced(self) -> bool:
        """Removes a booking that nothing but an absence or a time proves to be over."""
        return bool(self.taken) and not self.reported

    @property
    def of_table(self) -> bool:
        """Changes the slot table, which is repaired as a whole (decision 4)."""
        return self.action in (Action.UPDATE_SLOT, Action.REMOVE_SLOT)

    @property
    def of_metadata(self) -> bool:
        """Changes metadata and no booking."""
        return self.action in (Action.WRITE_METADATA, Action.REMOVE_METADATA)


class WaitReason(Word):
    """Why a drift waits."""

    SETTLE = "settle"
    PROOF = "proof"
    FREEZE = "freeze"
    ENGINE = "engine"
    INVENTORY = "inventory"
    PACE = "pace"
    BACKOFF = "backoff"
    BLOCKED = "blocked"
    UNDONE = "undone"

    @property
    def ends_by_itself(self) -> bool:
        """Only time is needed: waiting is enough."""
        return self in (WaitReason.SETTLE, WaitReason.PROOF, WaitReason.PACE, WaitReason.INVENTORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDrift:
    """A drift as the gate sorted it, or as its repair ended. `until` None: not by time alone."""

    drift: Drift
    outcome: Outcome
    gate: WaitReason | None = None
    reason: str = ""
    until: Boot | None = None

    @property
    def waits_for_time(self) -> bool:
        """It waits for nothing but time."""
        return (
            self.outcome is Outcome.WAITING and self.gate is not None and self.gate.ends_by_itself
        )


class FindingKind(Word):
    """Problems that can only be reported."""

    SHARED_SLOT = "shared-slot"
    ROGUE_PROCESS = "rogue-process"
    FOREIGN_USE = "foreign-use"
    BROAD_REQUEST = "broad-request"
    BOOKING_WITHOUT_DEVICE = "booking-without-device"
    DEVICE_WITHOUT_SLOT = "device-without-slot"
    NOT_ADOPTED = "not-adopted"
    LABEL_CONTRADICTION = "label-contradiction"
    UNHEALTHY_GPU = "unhealthy-gpu"
    OTHER_WRITER = "other-writer"
    UNCLEAR_LIMITS = "unclear-limits"
    UNCLEAR_REQUEST = "unclear-request"
    LONG_NAME = "long-name"
    STUCK_REMOVAL = "stuck-removal"
    OVERDUE_HOLD = "overdue-hold"
    IDLE_HOLDER = "idle-holder"
    DEVICE_LOST = "device-lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem that no repair of the books can solve.

    `slots`, `user` and `since` where it is about a container of somebody that holds several slots,
    and about a time; `slot` is the first of them.
    """

    kind: FindingKind
    container: ContainerName | None
    slot: SlotId | None
    reason: str
    slots: tuple[SlotId, ...] = ()
    user: UserName | None = None
    since: Wall | None = None
