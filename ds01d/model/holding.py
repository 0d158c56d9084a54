"""The verdict on a container: the slots that it rightly holds, and why.

A union; `Undecided` is the verdict in every doubt and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    OVERDUE = "overdue"
    LOST = "lost-its-booking"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """Rightly holds `slots` as `user`; `until`: when this verdict may change by time alone."""

    slots: frozenset[SlotId]
    user: UserName | None
    why: VerdictReason
    evidence: tuple[str, ...]
    until: Boot | None = None


class Proof(Word):
    """The proof that a container holds nothing."""

    DESTROYED = "destroyed"  # Docker sent a destroy event, and the name was not used again
    ABSENT = "absent"  # in no list for the absence grace
    EXPIRED = "expired"  # stopped, and its retention is over
    # What it was reserved for ended, and no container was made.
    PROCESS_ENDED = "process-ended"
    RENAMED = "renamed"  # the same container lives under another name


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Holds nothing from `due` on, which may be in the future.

    `since`: the begin of that wait. `known_id`: the container ID for the 404 proof, if known.
    `blocked`: why its slots cannot be released all the same, such as a living process of its own.
    `is_reported`: Docker itself reported the end, and no clock or absence stands for it.
    """

    proof: Proof
    due: Boot
    since: Boot
    why: VerdictReason
    evidence: tuple[str, ...]
    known_id: ContainerId | None = None
    renamed_to: ContainerName | None = None
    # Decision 16: what cannot be released is shown with its reason, not left out.
    blocked: str | None = None
    # Decision 226: the pace bounds what was inferred, and nothing was.
    is_reported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """A source that it needs failed, or a time is unknown: its books stay unchanged."""

    needs: Source
    reason: str
    evidence: tuple[str, ...] = ()


Verdict = Holds | Free | Undecided
Verdicts = Mapping[ContainerName, Verdict]
