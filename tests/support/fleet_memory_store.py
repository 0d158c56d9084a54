"""A fleet's store in memory: it compares what a real one compares, and fails when it is told to.

Each change raises the revision by one. `StoreView` is what one host has of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ds01d.model.fleet_books import (
    Absent,
    Changed,
    Conflict,
    ConflictKind,
    EntryChange,
    FleetContents,
    FleetEntry,
    NameEntry,
    NodeId,
    NodeIdentity,
    Revision,
    UserEntries,
    exceeds_use,
)
from ds01d.model.primitives import BookingId, ContainerName, Source, Unknown, UserName

T = TypeVar("T")
EntryKey = tuple[UserName, NodeId, BookingId]
AWAY = Unknown(source=Source.FLEET, reason="cannot reach etcd: timed out after 2 s")


@dataclass
class StoreInMemory:
    """All keys, and every state that they ever had."""

    cluster: str = "c1"
    revision: int = 1
    entries: dict[EntryKey, FleetEntry] = field(default_factory=dict)
    fences: dict[UserName, int] = field(default_factory=dict)
    names: dict[ContainerName, NameEntry] = field(default_factory=dict)
    identities: dict[NodeId, tuple[NodeIdentity, int]] = field(default_factory=dict)
    alive: set[NodeId] = field(default_factory=set)
    summaries: dict[NodeId, dict[str, object]] = field(default_factory=dict)
    forgotten: dict[NodeId, Revision] = field(default_factory=dict)
    malformed: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, FleetEntry]] = field(default_factory=list)

    def raise_revision(self) -> Changed:
        self.revision += 1
        return Changed(revision=Revision(self.revision))

    def count(self, user: str) -> int:
        return sum(entry.count for (owner, _, _), entry in self.entries.items() if owner == user)

    def copy(self) -> StoreInMemory:
        return StoreInMemory(
            cluster=self.cluster,
            revision=self.revision,
            entries=dict(self.entries),
            fences=dict(self.fences),
            names=dict(self.names),
            identities=dict(self.identities),
            summaries=dict(self.summaries),
            forgotten=dict(self.forgotten),
        )

    def restore(self, backup: StoreInMemory, cluster: str = "c2") -> None:
        """What a restore of a snapshot does: older contents, another cluster."""
        older = backup.copy()
        self.cluster, self.revision = cluster, older.revision
        self.entries, self.fences, self.names = older.entries, older.fences, older.names
        self.identities, self.summaries = older.identities, older.summaries
        self.forgotten = older.forgotten


class StoreView:
    """A `FleetBook`: tests/adapters/fleet/test_book_contract.py holds it to what a real one does.

    `failures`: how the next changes end, "before" or "after" they were made.

    `is_away`: nothing is answered. `uncounted`: users of whom not all is read.
    """

    def __init__(self, store: StoreInMemory) -> None:
        self.store = store
        self.is_away = False
        self.uncounted: set[UserName] = set()
        self.failures: list[str] = []
        self.calls: list[str] = []
        self._taken: tuple[NodeId, int] | None = None
        self._expected: tuple[str, int] = ("", 0)

    def expect_store(self, cluster: str, revision: Revision) -> None:
        self._expected = (cluster, revision)

    def read_user(self, user: UserName) -> UserEntries | Unknown:
        self.calls.append("read_user")
        if problem := self._find_problem():
            return problem
        if user in self.uncounted:
            reason = "too much in etcd"
            return UserEntries(user=user, entries=(), fence=Revision(0), uncounted=reason)
        return UserEntries(
            user=user,
            entries=tuple(e for (owner, _, _), e in self.store.entries.items() if owner == user),
            fence=Revision(self.store.fences.get(user, 0)),
            malformed={k: v for k, v in self.store.malformed.items() if f"/{user}/" in k},
        )

    def reserve_entry(self, entry: FleetEntry, fence: Revision) -> Changed | Conflict | Unknown:
        def change() -> Changed | Conflict:
            present = self.store.entries.get(_key(entry))
            taken = self.store.names.get(entry.container)
            if present is not None:
                # An earlier call, whose answer was lost.
                if exceeds_use(entry.use, present.use):
                    return Conflict(kind=ConflictKind.FENCE)
                return Changed(revision=Revision(self.store.revision))
            if taken is not None and not _is_of(taken, entry):
                return Conflict(kind=ConflictKind.NAME, holder=taken)
            if self.store.fences.get(entry.user, 0) != fence:
                return Conflict(kind=ConflictKind.FENCE)
            self._put(entry)
            self._take_name(entry)
            return self._bump(entry.user)

        return self._change("reserve", entry, change)

    def report_entry(self, entry: FleetEntry) -> Changed | Conflict | Unknown:
        def change() -> Changed | Conflict:
            holder = self._put_with_name(entry)
            changed = self._bump(entry.user)
            if holder is not None:
                return Conflict(kind=ConflictKind.NAME, holder=holder)
            return changed

        return self._change("report", entry, change)

    def confirm_entry(self, entry: FleetEntry) -> Changed | Absent | Conflict | Unknown:
        def change() -> Changed | Absent:
            before = self.store.entries.get(_key(entry))
            if before is None:
                return Absent()
            self._put_with_name(entry)
            if entry.use != before.use:
                return self._bump(entry.user)
            return self.store.raise_revision()

        return self._change("confirm", entry, change)

    def withdraw_entry(
        self, entry: FleetEntry, *, keeps_names: bool = False
    ) -> Changed | Absent | Conflict | Unknown:
        def change() -> Changed | Absent:
            before = self.store.entries.pop(_key(entry), None)
            containers = {entry.container} | ({before.container} if before else set())
            containers = set() if keeps_names else containers
            freed = [name for name in containers if self._free_name(name, entry)]
            if before is not None:
                return self.store.raise_revision()
            changed = self._bump(entry.user)
            return changed if freed else Absent()

        return self._change("withdraw", entry, change)

    def free_name(self, entry: FleetEntry) -> Changed | Absent | Conflict | Unknown:
        def change() -> Changed | Absent:
            present = self.store.entries.get(_key(entry))
            if present is not None and present.container == entry.container:
                return Absent()
            if not self._free_name(entry.container, entry):
                return Absent()
            return self.store.raise_revision()

        return self._change("free", entry, change)

    def read_contents(self) -> FleetContents | Unknown:
        self.calls.append("read_contents")
        if self.is_away:
            return AWAY
        store = self.store
        return FleetContents(
            cluster=store.cluster,
            revision=Revision(store.revision),
            identities={node: identity for node, (identity, _) in store.identities.items()},
            alive=frozenset(store.alive),
            entries=tuple(store.entries.values()),
            names=dict(store.names),
            summaries=dict(store.summaries),
            forgotten=dict(store.forgotten),
            malformed=dict(store.malformed),
        )

    def take_identity(
        self, identity: NodeIdentity, expected: int | None, *, rejoins: bool = False
    ) -> Changed | Conflict | Unknown:
        self.calls.append("take_identity")
        failure = self._take_failure()
        if self.is_away or failure == "before":
            return AWAY
        before = self.store.identities.get(identity.node)
        is_ours = before is not None and (before[0].incarnation, before[0].nonce) == (
            identity.incarnation,
            identity.nonce,
        )
        if not is_ours and (None if before is None else before[0].incarnation) != expected:
            return Conflict(
                kind=ConflictKind.INCARNATION, identity=None if before is None else before[0]
            )
        if before is None and not rejoins and identity.node in self.store.forgotten:
            return Conflict(kind=ConflictKind.INCARNATION)
        if not is_ours:
            self.store.raise_revision()
            self.store.identities[identity.node] = (identity, self.store.revision)
            self.store.forgotten.pop(identity.node, None)
        self._taken = (identity.node, self.store.identities[identity.node][1])
        return AWAY if failure == "after" else Changed(revision=Revision(self.store.revision))

    def keep_alive(self, seconds: int) -> Unknown | None:
        assert seconds > 0
        if self.is_away:
            return AWAY
        if self._taken is not None:
            self.store.alive.add(self._taken[0])
        return None

    def publish_summary(self, summary: dict[str, object]) -> Unknown | None:
        if self.is_away or self._taken is None:
            return AWAY
        self.store.summaries[self._taken[0]] = summary
        self.store.raise_revision()
        return None

    def forget_node(self, node: NodeId) -> Changed | Unknown:
        if self.is_away:
            return AWAY
        store = self.store
        store.identities.pop(node, None)
        store.alive.discard(node)
        store.summaries.pop(node, None)
        store.entries = {key: e for key, e in store.entries.items() if e.node != node}
        store.names = {name: taken for name, taken in store.names.items() if taken.node != node}
        changed = store.raise_revision()
        store.forgotten[node] = changed.revision
        return changed

    def watch_entries(self, after: Revision) -> Iterator[EntryChange | Unknown]:
        assert after >= 0
        yield AWAY

    # --- how a change is made

    def _change(
        self, what: str, entry: FleetEntry, change: Callable[[], T | Changed]
    ) -> T | Changed | Conflict | Unknown:
        self.calls.append(what)
        failure = self._take_failure()
        problem = self._find_problem()
        if problem or failure == "before":
            return problem or AWAY
        if self._taken is not None:
            now = self.store.identities.get(self._taken[0])
            if now is None or now[1] != self._taken[1]:
                return Conflict(
                    kind=ConflictKind.INCARNATION, identity=None if now is None else now[0]
                )
        revision = self.store.revision
        answer = change()
        if isinstance(answer, Changed) and self.store.revision > revision:
            self.store.changes.append((what, entry))
        return AWAY if failure == "after" else answer

    def _find_problem(self) -> Unknown | None:
        cluster, revision = self._expected
        if self.is_away:
            return AWAY
        if cluster and (self.store.cluster != cluster or self.store.revision < revision):
            return replace(AWAY, reason="another store answers")
        return None

    def _take_failure(self) -> str:
        return self.failures.pop(0) if self.failures else ""

    def _put(self, entry: FleetEntry) -> None:
        self.store.entries[_key(entry)] = entry

    def _put_with_name(self, entry: FleetEntry) -> NameEntry | None:
        """Put it, and its name if that is free; who has the name if another booking does."""
        before = self.store.entries.get(_key(entry))
        if before is not None and before.container != entry.container:
            self._free_name(before.container, entry)
        self._put(entry)
        taken = self.store.names.get(entry.container)
        if taken is None:
            self._take_name(entry)
        return None if taken is None or _is_of(taken, entry) else taken

    def _free_name(self, name: ContainerName, entry: FleetEntry) -> bool:
        taken = self.store.names.get(name)
        if taken is None or not _is_of(taken, entry):
            return False
        del self.store.names[name]
        return True

    def _take_name(self, entry: FleetEntry) -> None:
        self.store.names[entry.container] = NameEntry(
            container=entry.container, node=entry.node, booking=entry.booking
        )

    def _bump(self, user: UserName) -> Changed:
        changed = self.store.raise_revision()
        self.store.fences[user] = self.store.revision
        return changed


def _key(entry: FleetEntry) -> EntryKey:
    return entry.user, entry.node, entry.booking


def _is_of(name: NameEntry, entry: FleetEntry) -> bool:
    return (name.node, name.booking) == (entry.node, entry.booking)
