"""What the history tells was done: each entry with what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from ds01d.adapters.local_time import parse_time
from ds01d.cli.screen import Cell, Document, Table, Tone, Toned
from ds01d.cli.words import Moment
from ds01d.model.facts import Wall
from ds01d.reconcile.history import Entry, Phase, names_in, read

OPEN = "open"  # begun and never closed: its pass was killed, the change was made or not
_TONES = {"done": Tone.GOOD, "failed": Tone.BAD, OPEN: Tone.WARN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """An entry, and how it was closed: "done", "failed" (with why), or not at all."""

    entry: Entry
    outcome: str = OPEN
    failure: str = ""

    @property
    def at(self) -> Wall:
        """When it was begun; 0 where that makes no sense."""
        return parse_time(self.entry.at) or Wall(0.0)

    def about(self, subject: str) -> bool:
        """Whether a container or a slot has to do with it."""
        sides = [side for side in (self.entry.before, self.entry.after) if side is not None]
        slots = {slot for side in sides for slot in side.slots} | {self.entry.slot}
        return subject in slots or subject in names_in(self.entry)


def deeds(lines: Iterable[bytes]) -> Iterator[Deed]:
    """Every deed, oldest first."""
    found: dict[str, Deed] = {}
    for entry in read(lines):
        if entry.phase is Phase.BEGIN:
            found[entry.id] = Deed(entry=entry)
        elif entry.id in found:
            found[entry.id] = replace(
                found[entry.id], outcome=entry.phase.value, failure=entry.reason
            )
    return iter(found.values())


def deed(one: Deed) -> dict[str, Document]:
    """A deed, for JSON."""
    entry = one.entry
    return {
        "id": entry.id,
        "at": Moment(one.at),
        "outcome": one.outcome,
        "kind": entry.kind,
        "action": entry.action,
        "container": entry.container,
        "slot": entry.slot,
        "reason": entry.reason,
        "failure": one.failure,
        "evidence": entry.evidence,
        "before": msgspec.to_builtins(entry.before),
        "after": msgspec.to_builtins(entry.after),
    }


def deed_table(found: Sequence[Deed], *, verbose: bool = False) -> Table:
    """Deeds, a row each."""
    columns = ("at", "id", "outcome", "kind", "action", "container", "slot", "reason")
    return Table(
        columns,
        [_row(one) for one in found],
        [one.entry.evidence for one in found] if verbose else [],
    )


def _row(one: Deed) -> list[Cell]:
    entry = one.entry
    return [
        Moment(one.at),
        entry.id,
        Toned(one.outcome, _TONES.get(one.outcome, Tone.PLAIN)),
        entry.kind,
        entry.action,
        entry.container,
        entry.slot,
        "; ".join(part for part in (entry.reason, one.failure) if part),
    ]
