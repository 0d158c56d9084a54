"""The judge: whether each change of the books was right, and whether they come right in the end.

Shares no code with ds01d and asks it nothing but when it swept: what is comes from the engine
(`reality`), the books from the disk (`books`), and who wrote what from those who did (`foreign`).
Where something happened between two looks and could have been either way, nothing is claimed.
"""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.verification.campaign.books import Books, Change, Document, Entry, RecordChange, newest
from tests.verification.campaign.calm import Calm
from tests.verification.campaign.clock import boot
from tests.verification.campaign.faults import Faults
from tests.verification.campaign.foreign import NEVER, Notes, Pair, Write
from tests.verification.campaign.ground import Ground
from tests.verification.campaign.reality import Reality
from tests.verification.campaign.rights import Rights

ENTRY_S = 20.0
"""So long after its entry in the history a change may reach the disk: both can be slow."""
MERGE_S = 120.0
RACE_S = 2.0
OWED_S = 30.0
"""So soon after a replacement wiped out what another writer wrote in that moment it is back."""

KINDS = {
    "false release": "false releases",
    "false removal": "false removals",
    "lasting drift": "lasting drifts",
    "lost foreign update": "lost foreign updates",
    "unexplained change": "unexplained changes",
    "exit not recovered": "exits not recovered",
    "file outside": "files outside touched",
}
"""What must not happen, and the same in plural."""

_TABLE = frozenset(("stale-slot", "vanished-slot"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that must not happen."""

    kind: str
    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A change of the state, with what may explain it.

    `strangers`: writes by others than `ds01-allocator` in that moment; `entries`: of the history,
    newest first; `table`: the slot table was changed by some of them.
    """

    change: Change
    before: Document
    after: Document
    strangers: list[Write]
    entries: list[Entry]
    table: bool


@dataclass
class Oracle:
    """Collects what happens, and judges it as soon as the engine has been asked again."""

    ground: Ground
    notes: Notes
    faults: Faults
    evidence: Path
    violations: list[Violation] = field(default_factory=list)
    oldest_drift: float = 0.0
    backed_off: int = 0
    changes: int = 0
    releases: int = 0

    def __post_init__(self) -> None:
        self.reality = Reality(self.ground)
        self.rights = Rights(self.ground, self.reality, self.notes, self.faults)
        self.books = Books(self.ground.site, self._queue, self._queue_record)
        self.calm = Calm(self.ground, self.books, self.rights)
        self._waiting: list[Change | RecordChange] = []
        self._seen: dict[Pair, float] = {}
        self._owed: dict[Pair, _Told] = {}
        self._judged: set[tuple[object, ...]] = set()
        self._entries_judged: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Oracle:  # noqa: PYI034 - typing has no Self in Python 3.10
        self.reality.__enter__()
        self.books.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.books.__exit__()
        self.reality.__exit__()

    def count(self, kind: str) -> int:
        return sum(one.kind == kind for one in self.violations)

    def accuse(self, kind: str, what: str, *key: object) -> None:
        """Note a violation, once for each key."""
        known = (kind, *key) if key else (kind, what)
        if known in self._judged:
            return
        self._judged.add(known)
        number = len(self.violations)
        self.violations.append(Violation(kind=kind, at=boot(), what=what))
        if number < 10:
            self._keep(f"{number:02d}-{kind.replace(' ', '-')}", what)

    def _keep(self, name: str, what: str) -> None:
        folder = self.evidence / name
        folder.mkdir(parents=True, exist_ok=True)
        recent = [repr(one) for one in self.notes.meeting(boot() - 30, boot())]
        look = self.reality.last
        containers = [repr(one) for one in look.by_id.values()] if look else []
        entries = [repr(one) for one in newest(self.books.history.entries, boot() - 30)]
        told = {"what": what, "writes": recent, "containers": containers, "entries": entries}
        (folder / "told.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        for part in ("lib", "ds01d", "log", "resource-limits.yaml", "ds01d.toml"):
            source = self.ground.site.folder / part
            with suppress(OSError, shutil.Error):
                if source.is_dir():
                    skip = shutil.ignore_patterns(".ballast", ".*replaced*")
                    shutil.copytree(source, folder / part, ignore=skip, dirs_exist_ok=True)
                else:
                    shutil.copy(source, folder / part)

    # --- as it happens

    def _queue(self, change: Change) -> None:
        with self._lock:
            self._waiting.append(change)
            if change.after is not None:
                self._seen |= dict.fromkeys(change.after.slots, change.end)

    def _queue_record(self, change: RecordChange) -> None:
        with self._lock:
            self._waiting.append(change)

    def judge(self) -> None:
        """Judge what can be judged by now."""
        with self._lock:
            ready = [one for one in self._waiting if self.reality.after(one.end) is not None]
            self._waiting = [one for one in self._waiting if one not in ready]
        for change in ready:
            if isinstance(change, Change):
                self.changes += 1
                self._judge_change(change)
            else:
                self._judge_record(change)
        self._judge_entries()
        self._judge_owed(OWED_S)
        for file in self.faults.touched:
            self.accuse("file outside", f"{file} was changed or removed", file)

    def _judge_change(self, change: Change) -> None:
        writes = self.notes.meeting(change.begin - 0.05, change.end)
        if change.after is None or change.before is None:
            # A broken file whose owner or mode is changed is as broken as before.
            if change.after is None and change.before is not None and not writes:
                self.accuse("unexplained change", "the state makes no sense, and nobody wrote it")
            return
        entries = [*newest(self.books.history.entries, change.begin - ENTRY_S)]
        told = _Told(
            change=change,
            before=change.before,
            after=change.after,
            strangers=[one for one in writes if one.who != "new"],
            entries=entries,
            table=any(entry.kind in _TABLE for entry in entries),
        )
        if change.in_place and not told.strangers:
            what = f"in place, by nobody: {_difference(told.before, told.after)}"
            self.accuse("unexplained change", what)
        if not change.in_place and not writes and not entries and not self._merges(told):
            what = f"by no entry in the history: {_difference(told.before, told.after)}"
            self.accuse("unexplained change", what)
        self._judge_gone(told)
        self._judge_come(told)

    def _judge_gone(self, told: _Told) -> None:
        change, before, after = told.change, told.before, told.after
        for name, slot in sorted(before.slots - after.slots):
            uuid = before.uuids.get(slot, slot)
            moved = (name, uuid) in after.devices
            if any(_takes(one, name, slot) for one in told.strangers) or self._called(name, change):
                continue
            taken = any((name, slot) in entry.taken for entry in told.entries)
            if not taken and self._was_foreign(name, slot, change.end, RACE_S):
                self._owed[name, slot] = told
                continue
            if not moved:
                self.releases += 1
                self._judge_release(name, uuid, change.begin, change.end, told)
            steady = self.rights.steady(uuid, change.begin, change.end)
            if not (taken or (told.table and (moved or not steady))):
                self._accuse_gone(name, slot, change)
        for name, uuid in sorted(before.devices - after.devices):
            slot = next(s for n, s in before.slots if n == name and before.uuids.get(s, s) == uuid)
            if (name, slot) in after.slots and not change.in_place:  # its slot is another device's
                self._judge_release(name, uuid, change.begin, change.end, told)

    def _accuse_gone(self, name: str, slot: str, change: Change) -> None:
        what = f"the booking of {name} on {slot} is gone, by no entry in the history"
        self.accuse("unexplained change", what, name, slot, change.end)
        if self._was_foreign(name, slot, change.begin):
            what = f"the booking of {name} on {slot}, by another writer, was overwritten"
            self.accuse("lost foreign update", what, name, slot)

    def _judge_owed(self, patience_s: float) -> None:
        """What was written in place just when ds01d replaced the file comes back, by its merge."""
        for (name, slot), told in list(self._owed.items()):
            change = told.change
            later = self.notes.meeting(change.end, boot())
            back = self._seen.get((name, slot), 0.0) > change.end
            if back or any(_takes(one, name, slot) for one in later):
                del self._owed[name, slot]
            elif boot() > change.end + patience_s:
                del self._owed[name, slot]
                self._accuse_gone(name, slot, change)
                uuid = told.before.uuids.get(slot, slot)
                self._judge_release(name, uuid, change.begin, change.end, told)

    def _judge_come(self, told: _Told) -> None:
        for name, slot in sorted(told.after.slots - told.before.slots):
            given = any(
                (name, slot) in entry.given or entry.kind == "unreadable-state"
                for entry in told.entries
            )
            known = self._was_foreign(name, slot, told.change.end)
            if not (told.table or given or known or self._called(name, told.change)):
                what = f"a booking of {name} on {slot} appeared, by no entry in the history"
                self.accuse("unexplained change", what, name, slot, told.change.end)

    def _merges(self, told: _Told) -> bool:
        """Whether it only adds what another writer had written into a file that was replaced."""
        added = told.after.slots - told.before.slots
        return bool(added) and all(self._was_foreign(*pair, told.change.end) for pair in added)

    def _called(self, name: str, change: Change) -> bool:
        """Whether `ds01-allocator` was called for this container just then."""
        calls = self.notes.meeting(change.begin - 0.05, change.end, name)
        return any(one.who == "new" for one in calls)

    def _was_foreign(self, name: str, slot: str, by: float, age_s: float = MERGE_S) -> bool:
        with self.notes.lock:
            for one in reversed(self.notes.writes):
                if one.done < by - age_s:
                    return False
                known = one.what == "state" and one.begun <= by and one.pairs
                if known and (name, slot) in known:
                    return True
        return False

    def _judge_entries(self) -> None:
        """The history itself says what was taken, also where others wrote in the same moment."""
        for entry in list(self.books.history.entries.values()):
            if entry.outcome != "done" or entry.id in self._entries_judged:
                continue
            if self.reality.after(entry.closed) is None:
                continue
            self._entries_judged.add(entry.id)
            if entry.kind in _TABLE:
                continue
            if entry.kind == "booking":
                self._judge_booking(entry)
                continue
            for name, uuid in sorted(entry.devices_taken):
                self._judge_release(name, uuid, entry.boot, entry.at, None, entry)

    def _judge_booking(self, entry: Entry) -> None:
        """What the booking service changed, somebody has just asked for."""
        calls = self.notes.meeting(entry.boot - 0.05, entry.closed, entry.container)
        if not any(one.who == "new" for one in calls):
            what = f"the service changed the booking of {entry.container}, and nobody called"
            self.accuse("unexplained change", what, entry.container, entry.id)

    # --- releases

    def _judge_release(
        self,
        name: str,
        uuid: str,
        begin: float,
        end: float,
        told: _Told | None,
        entry: Entry | None = None,
    ) -> None:
        """Whether a container had a right to a booking at the moment when it lost it."""
        why = self.rights.right(name, begin, end, uuid)
        if why is None:
            return
        sight = self.rights.now_called(name, begin, end)
        if sight is not None and sight.name != name:
            follows = told is not None and (sight.name, uuid) in told.after.devices
            names = self.notes.later_names(name, begin - ENTRY_S, end)
            entries = [entry] if entry else told.entries if told else []
            if follows or has_followed(name, names, entries):
                return
        reason = f" ({entry.kind}: {entry.reason})" if entry is not None else ""
        self.accuse(
            "false release", f"{name} lost {uuid} at {end:.2f}, but {why}{reason}", name, uuid
        )

    # --- metadata

    def _judge_record(self, change: RecordChange) -> None:
        if self.notes.meeting(change.begin - 0.05, change.end, change.name):
            return
        entries = newest(self.books.history.entries, change.begin - ENTRY_S)
        if not any(change.name in entry.records for entry in entries):
            what = f"metadata of {change.name}: {_short(change.before)} → {_short(change.after)}"
            self.accuse("unexplained change", what, change.name, change.end)
        if change.after is not None or change.before is None:
            return
        with suppress(ValueError):
            json.loads(change.before)
            sight = self.rights.now_called(change.name, change.begin, change.end)
            if sight is not None and sight.name != change.name:
                return
            why = self.rights.right(change.name, change.begin, change.end, None)
            if why is not None:
                what = f"the metadata of {change.name} was removed, but {why}"
                self.accuse("false removal", what, change.name)

    # --- when all is calm

    def lost_updates(self, since: float) -> None:
        """Bookings of other writers that never came to be, though none of them overwrote them."""
        self._judge_owed(0.0)
        with self.notes.lock:
            writes = [one for one in self.notes.writes if one.what == "state"]
        recent = [one for one in writes if one.begun >= since and one.done < NEVER]
        for write in recent:
            for pair in write.added:
                if self._seen.get(pair, 0.0) >= write.begun - 0.05:
                    continue
                others = [one for one in writes if one is not write and one.done >= write.begun]
                if any(_takes(one, *pair) for one in others):
                    continue
                if any(pair in e.taken for e in self.books.history.entries.values()):
                    continue
                late = ", into a file that was just replaced" if write.late else ""
                what = f"{write.who} booked {pair[0]} on {pair[1]}{late}, and it never was there"
                self.accuse("lost foreign update", what, pair)


def has_followed(name: str, names: frozenset[str], entries: list[Entry]) -> bool:
    """Whether a booking went to one of the names that its container had since.

    Two renames may come between two looks: by then it may have yet another name.
    """
    return any(
        entry.kind == "renamed-container"
        and any(who == name for who, _ in entry.taken)
        and any(who in names for who, _ in entry.given)
        for entry in entries
    )


def _takes(write: Write, name: str, slot: str) -> bool:
    """Whether somebody's write left a booking out, or broke the file."""
    if write.who == "new":
        return name in write.removed
    return write.pairs is None or (name, slot) not in write.pairs


def _difference(before: Document, after: Document) -> str:
    gone, come = sorted(before.slots - after.slots), sorted(after.slots - before.slots)
    return f"gone {gone}, new {come}, users {before.users != after.users}"


def _short(text: str | None) -> str:
    return "nothing" if text is None else " ".join(text.split())[:200]
