"""What a campaign notes: each change of the store, and what was asked of each host and answered.

Written as lines of JSON, so that a history that went wrong can be checked again by itself. Moments
are CLOCK_BOOTTIME in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key at one revision. `value` None: it was deleted. `version` 1: it was not there before.

    `seen`: when the watch brought it, so the change was made before. `epoch`: one more with each
    restore of the store from a snapshot, after which revisions begin again.
    """

    epoch: int
    revision: int
    key: str
    value: Mapping[str, Any] | None
    version: int
    seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The store is from here on what it was at `revision` of the epoch before."""

    epoch: int
    revision: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A booking that somebody asked for. `outcome`: "granted", "refused", or "" without an answer.

    `released`: when its release was asked for, by whomever; from then on nobody knows whether it is
    booked. `code`: why it was refused. `slots`: how many were granted, where the host said so;
    `places`: which.
    """

    host: str
    user: str
    container: str
    count: int
    asked: float
    answered: float = 0.0
    outcome: str = ""
    code: str = ""
    booking: str = ""
    slots: int = 0
    places: Sequence[str] = ()
    released: float | None = None

    def is_certain(self, since: float, until: float) -> bool:
        """Whether the host has had it all this time."""
        return (
            self.outcome == "granted"
            and self.answered <= since
            and (self.released is None or self.released > until)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look at the books of a host: its bookings, each container with how many slots."""

    host: str
    began: float
    ended: float
    bookings: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """An admin asked to forget a host."""

    host: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """What the campaign itself found, and nobody has to derive."""

    kind: str
    what: str
    at: float


Note = Change | Restored | Attempt | Look | Forgotten | Wrong
_KINDS = {kind.__name__: kind for kind in (Change, Restored, Attempt, Look, Forgotten, Wrong)}


@dataclass(slots=True)
class History:
    """Everything that was noted, each kind in its order."""

    quotas: dict[str, int] = field(default_factory=dict)
    """Slots of each user over all hosts; who is not in it has no limit."""
    changes: list[Change] = field(default_factory=list)
    restores: list[Restored] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    forgotten: list[Forgotten] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)
    strict: frozenset[str] = frozenset()
    """Hosts that book nothing while the store is away."""
    is_shared: bool = False
    """Containers share slots, and a slot counts once for each user."""

    def add(self, note: Note) -> None:
        match note:
            case Change():
                self.changes.append(note)
            case Restored():
                self.restores.append(note)
            case Attempt():
                self.attempts.append(note)
            case Look():
                self.looks.append(note)
            case Forgotten():
                self.forgotten.append(note)
            case Wrong():
                self.wrong.append(note)

    def notes(self) -> Iterator[Note]:
        yield from self.changes
        yield from self.restores
        yield from self.attempts
        yield from self.looks
        yield from self.forgotten
        yield from self.wrong

    def write(self, path: Path) -> None:
        """Keep it: a line for the limits, then one for each note."""
        first = {
            "quotas": self.quotas,
            "strict": sorted(self.strict),
            "is_shared": self.is_shared,
        }
        lines = [json.dumps(first), *(_encode(note) for note in self.notes())]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_history(lines: Iterable[str]) -> History:
    """What `History.write` kept."""
    rows = iter(lines)
    first = json.loads(next(rows))
    history = History(
        quotas=first["quotas"],
        strict=frozenset(first["strict"]),
        is_shared=first.get("is_shared", False),
    )
    for row in rows:
        kind, values = json.loads(row)
        history.add(_KINDS[kind](**values))
    return history


def _encode(note: Note) -> str:
    return json.dumps([type(note).__name__, asdict(note)])
