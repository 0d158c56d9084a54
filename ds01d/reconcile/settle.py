"""Settling what is due: prove again, lock, read again, record, write once, verify.

Killed at any instant it leaves the books as they were, or with the state written and the metadata
not yet: the next pass finds the rest as drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ds01d.config import Config
from ds01d.decide.absence import describe_living, still_so
from ds01d.decide.books import Books, RecordChange
from ds01d.decide.decision import Decision, decide
from ds01d.decide.gate import repair_key
from ds01d.errors import BooksChanged, Ds01Error, HistoryFailed
from ds01d.model.containers import Container, Gone
from ds01d.model.drift import Drift, Kind
from ds01d.model.facts import ContainerName, Digest, SlotId, Unknown
from ds01d.model.holding import Free, Proof, Verdict
from ds01d.model.memory import Memory
from ds01d.model.records import AllocatorState, Unreadable
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile import history
from ds01d.reconcile.ports import World

ATTEMPTS = 5  # other writers may change the file under us this often before we give up for now


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of the drifts that were due.

    `postponed`: no longer so when looked at again. `written`: those whose bookings are in the state
    now, whether or not the rest of them (a record, the verification) failed. `no_history`: why the
    history could not be written, so that nothing was done.
    """

    done: tuple[Drift, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    postponed: Mapping[str, str] = field(default_factory=dict)
    written: tuple[Drift, ...] = ()
    troubles: tuple[str, ...] = ()
    no_history: str = ""


def settle(
    decision: Decision, due: Sequence[Drift], memory: Memory, world: World, config: Config
) -> Settled:
    """Make the books true as far as `due` goes, which is due by `decision`.

    `memory` is the one decided with. Never raises for a failed write: that is an outcome.
    """
    return _Settling(world, memory, config).settle(decision, due)


class _Settling:
    """The settling of one pass, with what became of each drift so far."""

    def __init__(self, world: World, memory: Memory, config: Config) -> None:
        self._world = world
        self._memory = memory
        self._config = config
        self._failed: dict[str, str] = {}
        self._postponed: dict[str, str] = {}
        self._written: tuple[Drift, ...] = ()
        self._troubles: list[str] = []

    def settle(self, decision: Decision, due: Sequence[Drift]) -> Settled:
        proven, no_history = self._prove(decision, due), ""
        try:
            if proven:
                with self._world.state.lock():
                    self._write(decision, proven)
        except Ds01Error as error:
            self._failed |= {d.key: str(error) for d in proven if d not in self._written}
            no_history = str(error) if isinstance(error, HistoryFailed) else ""
        return Settled(
            done=tuple(d for d in self._written if d.key not in self._failed),
            failed=self._failed,
            postponed=self._postponed,
            written=self._written,
            troubles=tuple(self._troubles),
            no_history=no_history,
        )

    def _prove(self, decision: Decision, due: Sequence[Drift]) -> tuple[Drift, ...]:
        """The due drifts that a fresh inspect bears out. What takes nothing needs no proof."""
        refuted: set[ContainerName] = set()
        for name in sorted({d.container for d in due if d.container and d.takes}):
            before = decision.view.container(name) if decision.view is not None else None
            answer, reason = self._look_again(name, decision.verdicts[name], before)
            if reason is not None:
                refuted.add(name)
                told = self._failed if isinstance(answer, Unknown) else self._postponed
                told |= {d.key: reason for d in due if d.container == name}
        refuted |= self._refute_living(decision, [d for d in due if d.container not in refuted])
        return tuple(d for d in due if d.container not in refuted)

    def _refute_living(self, decision: Decision, due: Sequence[Drift]) -> set[ContainerName]:
        """The containers that are to lose something and live for the kernel, or may do so."""
        names = {d.container for d in due if d.container and d.takes}
        ids = decision.ids_of(names)
        living = self._world.processes.find_living(ids) if ids else {}
        refuted: set[ContainerName] = set()
        for name in names:
            alive = describe_living(decision.ids_of({name}), living)
            if alive is not None:
                refuted.add(name)
                told = self._failed if isinstance(living, Unknown) else self._postponed
                told |= {d.key: alive for d in due if d.container == name}
        return refuted

    def _look_again(
        self, name: ContainerName, verdict: Verdict, before: Container | None
    ) -> tuple[Container | Gone | Unknown, str | None]:
        """What Docker says now of a container that is to lose something, and why it may not."""
        living = before.id if before is not None else None
        known = verdict.known_id if isinstance(verdict, Free) else living
        answer = self._world.engine.look_up(name, known)
        reason = still_so(verdict, before, answer)
        renamed = isinstance(verdict, Free) and verdict.proof is Proof.RENAMED
        if reason is None and renamed:
            answer = self._world.engine.look_up(name, None)
            if not isinstance(answer, Gone):
                reason = f"whether the name {name} is free again could not be proven"
        return answer, reason

    def _write(self, decision: Decision, proven: Sequence[Drift]) -> None:
        world, entered = self._world, 0
        for _ in range(ATTEMPTS):
            decision, due = self._again(decision, proven)
            self._postponed |= _missing(proven, due)
            if not due:
                return
            books = decision.books(due)
            ids = history.begin(world, decision, due, books, first=entered)
            entered += len(ids)
            try:
                state = _write_state(decision, books, world)
            except BooksChanged as changed:
                history.close(world, dict.fromkeys(ids, str(changed)))
                continue
            except Ds01Error as error:
                history.close(world, dict.fromkeys(ids, str(error)))
                raise
            self._written = due
            self._finish(due, ids, books, state)
            return
        raise BooksChanged(
            f"another writer changed the state {ATTEMPTS} times while it was to be written"
        )

    def _finish(
        self,
        due: Sequence[Drift],
        ids: Sequence[str],
        books: Books,
        state: AllocatorState | None,
    ) -> None:
        """After the state is written: the metadata, the verification, the end of the entries."""
        broken = _write_records(books, self._world)
        there = None if state is None else _bookings(state)
        outcomes: dict[str, str | None] = {}
        for entry, drift in zip(ids, due, strict=True):
            wrong = next((broken[n] for n in sorted(_names(drift)) if n in broken), None)
            outcomes[entry] = why = wrong or _unsettled(drift, there)
            if why is not None:
                self._failed[drift.key] = why
        try:
            history.close(self._world, outcomes)
        except Ds01Error as error:  # it is done, and entered: an open entry tells enough
            self._troubles.append(str(error))

    def _again(
        self, decision: Decision, proven: Sequence[Drift]
    ) -> tuple[Decision, tuple[Drift, ...]]:
        """Read the books again; if they changed, decide afresh and keep only what was proven.

        The operations log too: a wrapper writes its line there before it books anything.
        """
        world, seen = self._world, decision.seen
        fresh = replace(
            seen,
            state=world.state.read(),
            metadata=world.metadata.read(seen.names),
            operations=world.operations.read(),
        )
        if _books(fresh) != _books(seen):
            decision = decide(fresh, self._memory, self._config)
        allowed = {repair_key(drift) for drift in proven}
        return decision, tuple(d for d in decision.due if repair_key(d) in allowed)


def _books(seen: Snapshot) -> tuple[object, ...]:
    return _digest(seen.state), seen.metadata, seen.operations


def _digest(state: AllocatorState | Unreadable | Unknown) -> tuple[str, object]:
    if isinstance(state, Unknown):
        return ("unknown", state.reason)
    return (state.digest, state.merge if isinstance(state, AllocatorState) else None)


def _missing(proven: Iterable[Drift], due: Iterable[Drift]) -> dict[str, str]:
    there = {drift.key for drift in due}
    return {d.key: "the books changed meanwhile" for d in proven if d.key not in there}


def _write_state(decision: Decision, books: Books, world: World) -> AllocatorState | None:
    seen = decision.seen.state
    if books.state is None or isinstance(seen, Unknown):
        return seen if isinstance(seen, AllocatorState) else None
    return world.state.write(books.state, onto=Digest(seen.digest))


def _write_records(books: Books, world: World) -> dict[ContainerName, str]:
    """Write and remove metadata; one that fails harms no other. Gives what failed, and why."""
    outcomes = {change.name: _write_record(change, world) for change in books.records}
    return {name: why for name, why in outcomes.items() if why is not None}


def _write_record(change: RecordChange, world: World) -> str | None:
    try:
        if change.record is not None:
            world.metadata.write(change.record, onto=change.onto)
        elif change.onto is not None:
            world.metadata.remove(change.name, onto=change.onto)
    except Ds01Error as error:
        return str(error)
    return None


def _names(drift: Drift) -> frozenset[ContainerName]:
    names = {name for name, _ in drift.taken | drift.given}
    return frozenset(names if drift.container is None else names | {drift.container})


_Bookings = frozenset[tuple[ContainerName, SlotId]]


def _bookings(state: AllocatorState) -> _Bookings:
    return frozenset((name, slot.id) for slot in state.slots.values() for name in slot.containers)


def _unsettled(drift: Drift, there: _Bookings | None) -> str | None:
    """Why the file does not say what it should after the write; None if it does."""
    if there is None or drift.kind is Kind.UNREADABLE_STATE:
        return None
    if drift.taken & there - drift.given:
        return "another writer put the booking back at once"
    if drift.given - there:
        return "another writer removed the booking at once"
    return None
