"""Bookings as the history alone shows them: read afresh, by nothing of ds01d.

What the accounting has to agree with. The lines are read as JSON, whole, with all of them at hand:
the accounting sees each once, in the order in which they come, through restarts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Clocks:
    """Both clocks at one moment."""

    boot_id: str
    boot: float
    wall: float


@dataclass
class Booked:
    """A booking; `begin` and `end` (None: it goes on) by the wall clock as it was set last."""

    container: str
    slot: str
    user: str | None
    begin: float
    end: float | None = None
    why: str = ""


def replay(
    lines: Iterable[bytes], seen: Iterable[Clocks], user_of: Callable[[str], str | None]
) -> list[Booked]:
    """Every booking of a history. `seen`: clocks that were read besides."""
    entries = [json.loads(line) for line in lines]
    begun = {entry["id"]: entry for entry in entries if entry["phase"] == "begin"}
    done = [begun[e["id"]] for e in entries if e["phase"] == "done" and e["id"] in begun]
    offsets: dict[str, tuple[float, float]] = {}
    marks = [
        *((e["boot_id"], e["boot"], datetime.fromisoformat(e["at"]).timestamp()) for e in done),
        *((clock.boot_id, clock.boot, clock.wall) for clock in seen),
    ]
    for boot_id, boot, wall in marks:
        if boot >= offsets.get(boot_id, (-1.0, 0.0))[0]:
            offsets[boot_id] = (boot, wall - boot)

    def moment(entry: dict[str, object]) -> float:
        return offsets[str(entry["boot_id"])][1] + float(str(entry["boot"]))

    every: list[Booked] = []
    current: dict[tuple[str, str], Booked] = {}
    groups: list[list[dict[str, object]]] = []
    for entry in done:
        if groups and groups[-1][0]["change"] == entry["change"]:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    for group in groups:
        _apply(group, current, every, moment, user_of)
    return every


def _apply(
    group: list[dict[str, object]],
    current: dict[tuple[str, str], Booked],
    every: list[Booked],
    moment: Callable[[dict[str, object]], float],
    user_of: Callable[[str], str | None],
) -> None:
    ends: list[tuple[Booked, dict[str, object]]] = []
    follows: dict[tuple[str, str], Booked] = {}
    opens: list[tuple[tuple[str, str], dict[str, object]]] = []
    changes = [(entry, _pairs(entry, "taken"), _pairs(entry, "given")) for entry in group]
    # What the books show afterwards is still there, unless it went and came back to somebody else.
    all_came = {pair for _, _, came in changes for pair in came}
    changes = [
        (entry, {p for p in gone if p in all_came or p not in _shown(entry)}, came)
        for entry, gone, came in changes
    ]
    # A name that is booked itself inherits nothing, unless its own booking moves on as well.
    stay = current.keys() - {pair for _, gone, came in changes for pair in gone - came}
    for entry, gone, came in changes:
        for pair in sorted(gone - came):
            booked = current.pop(pair)
            heirs = sorted(
                other for other in came - gone - stay - follows.keys() if other[1] == pair[1]
            )
            if heirs:
                follows[heirs[0]] = booked
            else:
                ends.append((booked, entry))
        opens += [(p, entry) for p in sorted(came - gone - stay) if p not in follows]
    for booked, entry in ends:
        booked.end = moment(entry)
        booked.why = {"undo": "undone", "release": "released"}.get(
            str(entry["action"]), str(entry["kind"])
        )
        if entry["action"] == "release" and entry["kind"] != "booking":
            booked.why = str(entry["kind"])
    for pair, booked in follows.items():
        booked.container = pair[0]
        current[pair] = booked
    for pair, entry in opens:
        user = next(
            (
                user
                for side in ("after", "before")
                if (text := _text(entry, side, pair[0])) is not None
                and (user := user_of(text)) is not None
            ),
            None,
        )
        current[pair] = Booked(*pair, user, moment(entry))
        every.append(current[pair])
    for entry in group:  # who owns a container may be found out later
        after = entry.get("after")
        texts = after.get("metadata", {}) if isinstance(after, dict) else {}
        for name, text in texts.items():
            user = None if text is None else user_of(text)
            for pair, booked in current.items():
                if pair[0] == name and user is not None:
                    booked.user = user


def _pairs(entry: dict[str, object], key: str) -> set[tuple[str, str]]:
    pairs = entry.get(key, [])
    assert isinstance(pairs, list)
    return {(str(name), str(slot)) for name, slot in pairs}


def _shown(entry: dict[str, object]) -> set[tuple[str, str]]:
    after = entry.get("after")
    slots = after.get("slots", {}) if isinstance(after, dict) else {}
    return {(name, slot) for slot, one in slots.items() if one for name in one["containers"]}


def _text(entry: dict[str, object], side: str, name: str) -> str | None:
    books = entry.get(side)
    text = books.get("metadata", {}).get(name) if isinstance(books, dict) else None
    return None if text is None else str(text)
