"""Replays what a watch saw of the store, revision by revision, and says what must not have been.

Written from the description of the keys alone; it shares no code with ds01d. It reports only what
it can prove: a host's own entry counts against its reservation only if that host certainly had the
booking then, for a host need not count what it has released and not yet withdrawn.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.verification.fleet.keys import (
    FenceKey,
    HeldKey,
    Key,
    NameKey,
    NodeKey,
    count_slots,
    parse_key,
    weigh_entry,
)
from tests.verification.fleet.records import Attempt, Change, History

KINDS: Final[Mapping[str, str]] = {
    "over quota": "reserved above the quota",
    "name twice": "one name for two bookings by reservation",
    "name taken": "a name that another booking still had was overwritten or deleted",
    "no fence": "an entry was made and the fence of its user not bumped with it",
    "no name": "reserved without its name",
    "living entry deleted": "the entry of a booking that the host still has was deleted",
    "entry came back": "an entry that had been deleted was there again without being reported",
    "booked while away": "a host that books nothing while the store is away has done so",
    "lost booking": "a booking that nobody released is not in the books of its host",
    "foreign booking": "a booking in the books of a host that nobody asked for",
    "missed change": "the watch of the checker has a gap: what it says proves nothing",
}
"""What the checker derives from a history; a campaign adds kinds of its own (`Wrong`)."""


@dataclass(frozen=True, slots=True)
class Violation:
    kind: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    key: HeldKey
    value: Mapping[str, Any]
    is_reserved: bool
    """It was a reservation once, and no mere report."""

    @property
    def container(self) -> str:
        return str(self.value["container"])

    def __str__(self) -> str:
        return f"{self.key.booking} ({self.container}) on {self.key.node}"


@dataclass(slots=True)
class _Store:
    """What the store has at a revision."""

    entries: dict[HeldKey, _Entry] = field(default_factory=dict)
    names: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    """Host names by node."""
    versions: dict[str, int] = field(default_factory=dict)

    def copy(self) -> _Store:
        return _Store(dict(self.entries), dict(self.names), dict(self.hosts), dict(self.versions))

    def find_user(self, user: str) -> list[_Entry]:
        return [entry for key, entry in self.entries.items() if key.user == user]


@dataclass(slots=True)
class _Revision:
    """The changes of one revision, by what they are."""

    epoch: int
    number: int
    seen: float
    changes: list[tuple[Key, Change]]

    def fences(self) -> set[str]:
        return {
            key.user
            for key, change in self.changes
            if isinstance(key, FenceKey) and change.value is not None
        }

    def __str__(self) -> str:
        return f"revision {self.number}" + (f" of epoch {self.epoch}" if self.epoch else "")


def check_history(history: History) -> list[Violation]:
    """Everything that is wrong with it, in its order; the findings of the campaign come last."""
    found = [*_Replay(history).run(), *check_books(history)]
    return [*found, *(Violation(note.kind, note.what) for note in history.wrong)]


class _Replay:
    """One replay of a watch."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._attempts = {one.booking: one for one in history.attempts if one.booking}
        self._store = _Store()
        # What the store had after each revision: a snapshot may be restored from any of them.
        self._past: dict[int, _Store] = {}
        self._seen: dict[HeldKey, _Entry] = {}
        self._deleted: set[HeldKey] = set()

    def run(self) -> Iterator[Violation]:
        restores = {one.epoch: one for one in self._history.restores}
        epoch = 0
        for revision in _group(self._history.changes):
            while epoch < revision.epoch:
                epoch += 1
                self._restore(restores[epoch].revision)
            yield from self._check_gap(revision)
            before = self._store.copy()
            self._apply(revision)
            yield from self._check_entries(revision, before)
            yield from self._check_names(revision, before)
            self._past[revision.number] = self._store.copy()

    def _restore(self, revision: int) -> None:
        known = [number for number in self._past if number <= revision]
        self._store = self._past[max(known)].copy() if known else _Store()
        self._past = {number: self._past[number] for number in known}
        self._deleted.clear()

    def _check_gap(self, revision: _Revision) -> Iterator[Violation]:
        for _, change in revision.changes:
            before = self._store.versions.get(change.key, 0)
            if change.value is not None and change.version != before + 1:
                what = f"{change.key} has version {change.version} after {before}, {revision}"
                yield Violation("missed change", what)

    def _apply(self, revision: _Revision) -> None:
        store = self._store
        for key, change in revision.changes:
            value = change.value
            if value is None:
                store.versions.pop(change.key, None)
            else:
                store.versions[change.key] = change.version
            match key:
                case HeldKey() if value is None:
                    self._delete(key)
                case HeldKey():
                    assert value is not None
                    was = self._seen.get(key)
                    is_reserved = value["phase"] == "reserved" or (
                        was is not None and was.is_reserved
                    )
                    store.entries[key] = _Entry(key=key, value=value, is_reserved=is_reserved)
                    self._seen[key] = store.entries[key]
                case NameKey() if value is None:
                    store.names.pop(key.container, None)
                case NameKey():
                    assert value is not None
                    store.names[key.container] = value
                case NodeKey(what="identity") if value is not None:
                    store.hosts[key.node] = str(value["host"])
                case _:
                    pass

    def _delete(self, key: HeldKey) -> None:
        entry = self._store.entries.pop(key, None)
        self._deleted.add(key)
        if entry is not None and entry.value["phase"] == "reserved":
            # Given up: if it was booked all the same, then as if the store had been away.
            self._seen.pop(key, None)

    # --- entries

    def _check_entries(self, revision: _Revision, before: _Store) -> Iterator[Violation]:
        for key, change in revision.changes:
            if not isinstance(key, HeldKey):
                continue
            if change.value is None:
                if key in before.entries:
                    yield from self._check_deleted(before.entries[key], revision)
                continue
            entry = self._store.entries[key]
            if key in before.entries:
                continue
            if key.user not in revision.fences():
                kind = "entry came back" if key in self._deleted else "no fence"
                yield Violation(kind, f"{entry}, {revision}")
            if entry.value["phase"] == "reserved":
                yield from self._check_reserved(entry, revision)
            elif self._find_host(key.node) in self._history.strict and self._is_new(key):
                yield Violation("booked while away", f"{entry}, {revision}")

    def _is_new(self, key: HeldKey) -> bool:
        """It was never reserved: a restored store is told again what hosts have."""
        return not self._seen[key].is_reserved

    def _check_reserved(self, entry: _Entry, revision: _Revision) -> Iterator[Violation]:
        name = self._store.names.get(entry.container, {})
        if name.get("booking") != entry.key.booking:
            yield Violation("no name", f"{entry}, {revision}")
        quota = self._history.quotas.get(entry.key.user)
        if quota is None:
            return
        others = [one for one in self._counted(entry, revision.seen) if one.key != entry.key]
        if self._history.is_shared:
            yield from self._check_places(entry, quota, revision)
            return
        total = sum(count_slots(one.value) for one in (entry, *others))
        if total > quota:
            beside = ", ".join(map(str, others))
            what = f"{entry} makes {total} of {quota} of {entry.key.user}, beside {beside}"
            yield Violation("over quota", f"{what}; {revision}")

    def _check_places(self, entry: _Entry, quota: int, revision: _Revision) -> Iterator[Violation]:
        """By the slots that the user certainly has: entries share them, and one has the weight."""
        places = {
            (attempt.host, place)
            for key, one in self._seen.items()
            if key.user == entry.key.user
            and key != entry.key
            and one.is_reserved
            and self._is_alive(key, revision.seen)
            for attempt in (self._attempts[key.booking],)
            for place in attempt.places
        }
        total = len(places) + weigh_entry(entry.value)
        if total > quota:
            beside = ", ".join(f"{host}:{place}" for host, place in sorted(places))
            what = f"{entry} makes {total:g} of {quota} GPUs of {entry.key.user}, beside {beside}"
            yield Violation("over quota", f"{what}; {revision}")

    def _counted(self, entry: _Entry, seen: float) -> Iterator[_Entry]:
        """What counts against a reservation beside itself.

        Of other hosts all that the store has, and what it has lost: an entry goes on counting while
        its host has the booking. Of this host what it certainly had.
        """
        now = self._store.find_user(entry.key.user)
        lost = [
            one
            for key, one in self._seen.items()
            if key.user == entry.key.user and key not in self._store.entries
        ]
        for one in now:
            if one.key.node != entry.key.node or self._is_alive(one.key, seen):
                yield one
        yield from (one for one in lost if self._is_alive(one.key, seen))

    def _is_alive(self, key: HeldKey, seen: float) -> bool:
        """It was granted in the end, and nobody had begun to release or forget it."""
        attempt = self._attempts.get(key.booking)
        if attempt is None or attempt.outcome != "granted":
            return False
        if attempt.released is not None and attempt.released <= seen:
            return False
        return not self._was_forgotten(attempt, seen)

    def _was_forgotten(self, attempt: Attempt, seen: float) -> bool:
        """What a host had when it was forgotten counts for nobody, until it reports it again."""
        return any(
            one.host == attempt.host and attempt.asked <= one.at <= seen
            for one in self._history.forgotten
        )

    def _check_deleted(self, entry: _Entry, revision: _Revision) -> Iterator[Violation]:
        # One that is only reserved may be given up, and booked as if the store were away.
        if entry.value["phase"] != "reserved" and self._is_alive(entry.key, revision.seen):
            yield Violation("living entry deleted", f"{entry}, {revision}")

    def _find_host(self, node: str) -> str:
        return self._store.hosts.get(node, "")

    # --- names

    def _check_names(self, revision: _Revision, before: _Store) -> Iterator[Violation]:
        living = {key.booking for key in self._store.entries}
        for key, change in revision.changes:
            if not isinstance(key, NameKey):
                continue
            was = before.names.get(key.container)
            if was is None:
                continue
            is_other = change.value is None or change.value.get("booking") != was["booking"]
            if is_other and was["booking"] in living:
                what = f"{key.container} of {was['booking']}"
                yield Violation("name taken", f"{what}, {revision}")
        for key, change in revision.changes:
            if isinstance(key, HeldKey) and change.value is not None and key not in before.entries:
                yield from self._check_twice(self._store.entries[key], revision)

    def _check_twice(self, entry: _Entry, revision: _Revision) -> Iterator[Violation]:
        if entry.value["phase"] != "reserved":
            return
        for other in self._seen.values():
            is_same = other.key == entry.key or other.container != entry.container
            if is_same or not other.is_reserved:
                continue
            is_there = other.key in self._store.entries and other.key.node != entry.key.node
            if is_there or self._is_alive(other.key, revision.seen):
                yield Violation("name twice", f"{entry} and {other}, {revision}")


def _group(changes: Sequence[Change]) -> Iterator[_Revision]:
    for (epoch, number), rows in itertools.groupby(changes, lambda one: (one.epoch, one.revision)):
        found = list(rows)
        keyed = [(key, one) for one in found if (key := parse_key(one.key)) is not None]
        yield _Revision(epoch, number, max(one.seen for one in found), keyed)


# --- the books of each host


def check_books(history: History) -> Iterator[Violation]:
    """Nothing but what was asked of a host changes its books, whatever the store says."""
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in history.attempts:
        attempts[attempt.host].append(attempt)
    told: set[tuple[str, str]] = set()
    for look in history.looks:
        for attempt in attempts[look.host]:
            name = attempt.container
            subject = (look.host, attempt.booking or name)
            is_missing = attempt.is_certain(look.began, look.ended) and name not in look.bookings
            if is_missing and subject not in told:
                told.add(subject)
                since = f"granted {look.began - attempt.answered:.2f} s before"
                yield Violation("lost booking", f"{name} on {look.host}, {since}")
        asked = {one.container for one in attempts[look.host] if one.asked <= look.ended}
        for name in look.bookings.keys() - asked:
            if (look.host, name) not in told:
                told.add((look.host, name))
                yield Violation("foreign booking", f"{name} on {look.host}")
