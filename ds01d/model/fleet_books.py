"""What a fleet's store says: which host has which booking, whose names are taken, who takes part.

Values only. The store decides whether a new booking is allowed and nothing else: nothing here ever
makes a host release, move or forget a booking of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NewType

from ds01d.model.primitives import BookingId, ContainerName, SlotId, UserName, Wall, Word

NodeId = NewType("NodeId", str)
"""Of a host, made up once and kept in its state_dir: a host's name may change."""
Revision = NewType("Revision", int)
"""Of the store: one more with each change of anything in it."""

MAX_INCARNATION: Final = 1 << 53
"""Other readers of JSON have exact numbers up to there only."""

Extra = Mapping[str, object]
"""The fields of a value that this version does not know: they are written back as they were."""

QuotaUse = tuple[int, int]
"""What counts for a quota: slots, and GPU-equivalents in sevenths of a GPU."""


def exceeds_use(use: QuotaUse, other: QuotaUse) -> bool:
    """Whether it counts more than the other, by slots or by GPUs."""
    return use[0] > other[0] or use[1] > other[1]


class EntryPhase(Word):
    RESERVED = "reserved"
    """Allowed, and not yet in the host's books."""
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEntry:
    """A booking of a host, as the store has it.

    `count`: slots. `sevenths`: GPU-equivalents in sevenths of a GPU, as quotas count them.
    `slots`: empty while it is reserved. `since`: by the clock of that host, for display.
    """

    user: UserName
    node: NodeId
    booking: BookingId
    container: ContainerName
    phase: EntryPhase
    count: int
    sevenths: int
    since: Wall
    slots: tuple[SlotId, ...] = ()
    # Fields of a newer version, which are written back as they were.
    extra: Extra = field(default_factory=dict)

    @property
    def use(self) -> QuotaUse:
        return self.count, self.sevenths


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEntries:
    """All entries of a user, read at once. `fence`: when the last one was reserved; 0: never.

    `malformed`: keys whose values cannot be understood, with why. While there are some, nobody
    knows how much the user has; nor while `uncounted` has the reason why not all of it was read.
    """

    user: UserName
    entries: tuple[FleetEntry, ...]
    fence: Revision
    uncounted: str = ""
    malformed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameEntry:
    """A name of a container that is taken: by a booking of a host."""

    container: ContainerName
    node: NodeId
    booking: BookingId
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """A host that takes part. `incarnation`: one more with each start of its ds01d.

    Two hosts that count up the same one are copies of each other; `nonce`, which is made up for
    each incarnation and kept before it is written, tells them apart from one whose answer was lost.
    """

    node: NodeId
    host: str
    incarnation: int
    boot_id: str
    engine_id: str
    version: str
    protocols: tuple[int, ...]
    limits_digest: str = ""
    nonce: str = ""
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetContents:
    """Everything in the store at one revision. `alive`: whose lease had not run out then.

    `forgotten`: the hosts that an admin had forgotten and that have not rejoined, with the revision
    of that; an older ds01d writes none, and leaves that of a host that rejoins.
    `malformed`: keys whose values cannot be understood, with why; they count for nothing but that.
    """

    cluster: str
    revision: Revision
    identities: Mapping[NodeId, NodeIdentity]
    alive: frozenset[NodeId]
    entries: tuple[FleetEntry, ...]
    names: Mapping[ContainerName, NameEntry]
    summaries: Mapping[NodeId, Mapping[str, object]]
    settings: Mapping[str, object] | None = None
    forgotten: Mapping[NodeId, Revision] = field(default_factory=dict)
    malformed: Mapping[str, str] = field(default_factory=dict)


class ConflictKind(Word):
    FENCE = "fence"
    """Something was reserved for this user since the entries were read: read them again."""
    NAME = "name"
    """The container's name is taken."""
    INCARNATION = "incarnation"
    """The host's identity was changed by somebody else: it was forgotten, cloned or restored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A change was not made. `holder`: who has the name, where that is the reason."""

    kind: ConflictKind
    holder: NameEntry | None = None
    identity: NodeIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A change was made, or had been made already by the same booking."""

    revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """There is no such entry, or it belongs to another booking: nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryChange:
    """What a watch saw of one key. `entry` None: it was deleted."""

    revision: Revision
    key: str
    entry: FleetEntry | None
    malformed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """A member of the store, as doctor shows it. `problem`: why it gave no answer, "" if it did.

    `version`: of its etcd. `cluster`: of which store it is a member. `errors`: its own words, such
    as that its space is used up. `size`, `quota`: of its space in bytes; a quota of 0 is unknown.
    `certificate_end`: until when its certificate is valid; None without TLS.
    """

    endpoint: str
    version: str = ""
    cluster: str = ""
    has_leader: bool = False
    errors: tuple[str, ...] = ()
    size: int = 0
    quota: int = 0
    certificate_end: Wall | None = None
    problem: str = ""


Entries = Sequence[FleetEntry]
