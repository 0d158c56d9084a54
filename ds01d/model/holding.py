"""The verdict on a container: what it rightly holds, and why.

A frozen union; `Undecided` is the default of every doubt and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ds01d.model.primitives import Boot, ContainerId, ContainerName, SlotId, Source, UserName, Word


class VerdictReason(Word):
    """The row of the verdict table that applied."""

    FOREIGN = "foreign"
    PINNED = "pinned"
    CREATING = "being-created"
    RENAMED = "renamed"
    RUNNING = "running"
    HOLD = "hold-after-stop"
    HOLD_OVER = "hold-over"
    LOST = "lost-its-booking"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """Rightly holds `slots` as `user`; `until` is when this verdict may change by time alone."""

    slots: frozenset[SlotId]
    user: UserName | None
    why: VerdictReason
    evidence: tuple[str, ...]
    until: Boot | None = None


class Proof(Word):
    """What makes a container free."""

    DESTROYED = "destroyed"  # Docker told, and the name stayed away
    ABSENT = "absent"  # in no list for the absence grace
    EXPIRED = "expired"  # stopped, and its hold is over
    RENAMED = "renamed"  # the same container lives under another name


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Holds nothing from `due` on, which may lie ahead.

    `since`: from when on that wait is counted. `known_id`: the id to prove it by, if known.
    `blocked`: what stands against a release all the same, as a process of its own that lives.
    """

    proof: Proof
    due: Boot
    since: Boot
    why: VerdictReason
    evidence: tuple[str, ...]
    known_id: ContainerId | None = None
    renamed_to: ContainerName | None = None
    blocked: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """A source it needs failed, or time itself is unknown: the books keep what they say."""

    needs: Source
    reason: str
    evidence: tuple[str, ...] = ()


Verdict = Holds | Free | Undecided
