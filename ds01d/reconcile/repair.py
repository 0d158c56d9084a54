"""Repairs the drifts that are due: confirm, lock, read again, write history, state and metadata.

Killed at any point it leaves the books as they were, or the state written and the metadata not
yet: the next pass finds the rest as drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ds01d.config import Config
from ds01d.decide.decision import Decision, decide
from ds01d.decide.drift_groups import repair_groups
from ds01d.decide.expected_books import ExpectedBooks, RecordChange
from ds01d.decide.fresh_proof import find_contradiction
from ds01d.decide.gaps import longest_break_s
from ds01d.decide.index import BooksIndex
from ds01d.decide.liveness import describe_living
from ds01d.errors import BooksChanged, Ds01Error, HistoryFailed
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, NotFound
from ds01d.model.drift import Drift, DriftKey, Kind, RepairKey
from ds01d.model.holding import Free
from ds01d.model.primitives import ContainerId, ContainerName, Digest, SlotId, Unknown
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile import history
from ds01d.reconcile.ports import World

ATTEMPTS = 5  # writers without the lock may change the file in between


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """The outcome of the drifts that were due; `failed` and `postponed` by key, with the reason.

    `postponed`: contradicted when looked at again. `written`: in the state file now, even if the
    metadata or the verification failed. `history_failure`: why the history could not be written,
    so that nothing was done. `open_entries`: entries of renames, to be closed once the checkpoint
    is saved. `has_unfinished`: a rename was written in part; `recovery` finishes it.
    """

    done: tuple[Drift, ...] = ()
    failed: Mapping[DriftKey, str] = field(default_factory=dict)
    postponed: Mapping[DriftKey, str] = field(default_factory=dict)
    written: tuple[Drift, ...] = ()
    warnings: tuple[str, ...] = ()
    history_failure: str = ""
    open_entries: tuple[str, ...] = ()
    has_unfinished: bool = False


def repair_drifts(
    decision: Decision, due: Sequence[Drift], checkpoint: Checkpoint, world: World, config: Config
) -> RepairResult:
    """Repair the drifts `due`. `checkpoint`: the checkpoint that was decided with.

    A failed write is an outcome, never an exception.
    """
    return _Repair(world, checkpoint, config).run(decision, due)


class _Repair:
    """The repairs of one pass, with the outcomes so far."""

    def __init__(self, world: World, checkpoint: Checkpoint, config: Config) -> None:
        self._world = world
        self._memory = checkpoint
        self._config = config
        self._failed: dict[DriftKey, str] = {}
        self._postponed: dict[DriftKey, str] = {}
        self._written: tuple[Drift, ...] = ()
        self._troubles: list[str] = []
        self._open_entries: list[str] = []
        self._unfinished = False

    def run(self, decision: Decision, due: Sequence[Drift]) -> RepairResult:
        proven, no_history = self._confirm_due(decision, due), ""
        try:
            if proven:
                with self._world.state.lock():
                    self._write_change(decision, proven)
        except Ds01Error as error:
            self._failed |= {d.key: str(error) for d in proven if d not in self._written}
            no_history = str(error) if isinstance(error, HistoryFailed) else ""
        return RepairResult(
            done=tuple(d for d in self._written if d.key not in self._failed),
            failed=self._failed,
            postponed=self._postponed,
            written=self._written,
            warnings=tuple(self._troubles),
            history_failure=no_history,
            open_entries=tuple(self._open_entries),
            has_unfinished=self._unfinished,
        )

    def _confirm_due(self, decision: Decision, due: Sequence[Drift]) -> tuple[Drift, ...]:
        """The due drifts that a new inspect confirms. One that takes nothing needs none."""
        # Changes of one group (swapped names, a table) are confirmed together, or not at all.
        refuted: set[str] = set()
        groups = repair_groups(due)
        for drift in sorted((d for d in due if d.container and d.takes), key=lambda d: d.key):
            if groups[drift.key] in refuted:
                continue
            answer, reason = self._inspect_again(drift, decision)
            if reason is not None:
                refuted.add(groups[drift.key])
                reasons = self._failed if isinstance(answer, Unknown) else self._postponed
                reasons |= {d.key: reason for d in due if groups[d.key] == groups[drift.key]}
        left = [d for d in due if groups[d.key] not in refuted]
        living = self._find_living(decision, left)
        refuted |= {groups[d.key] for d in left if d.container in living}
        return tuple(d for d in due if groups[d.key] not in refuted)

    def _find_living(self, decision: Decision, due: Sequence[Drift]) -> set[ContainerName]:
        """The containers that are to lose a booking although a process of them may live."""
        # Docker may call a container exited whose processes the kernel still runs; the slot would
        # be given to somebody else while its GPU is in use.
        names = {d.container for d in due if d.container and d.takes and not d.renamed_to}
        ids = decision.find_inactive_ids(names)
        living = self._world.processes.find_living(ids) if ids else {}
        refuted: set[ContainerName] = set()
        for name in names:
            alive = describe_living(decision.find_inactive_ids({name}), living)
            if alive is not None:
                refuted.add(name)
                reasons = self._failed if isinstance(living, Unknown) else self._postponed
                reasons |= {d.key: alive for d in due if d.container == name}
        return refuted

    def _inspect_again(
        self, drift: Drift, decision: Decision
    ) -> tuple[Container | NotFound | Unknown, str | None]:
        """Docker's answer of now for a container that loses a booking, and a contradiction."""
        name, view = drift.container, decision.index
        if name is None or view is None:
            return NotFound(), None
        if drift.renamed_to is not None:
            return self._inspect_renamed(name, drift.renamed_to, view)
        if name in view.renames.orphans:
            return self._inspect_orphan(view.checkpoint.identities[name].id)
        verdict, before = decision.verdicts[name], view.find_container(name)
        living = before.id if before is not None else None
        known_id = verdict.known_id if isinstance(verdict, Free) else living
        answer = self._world.engine.look_up(name, known_id)
        return answer, find_contradiction(verdict, before, answer)

    def _inspect_orphan(
        self, known_id: ContainerId
    ) -> tuple[Container | NotFound | Unknown, str | None]:
        """Whether a container is gone whose name another one has by now: by its ID alone."""
        answer = self._world.engine.look_up(ContainerName(known_id), known_id)
        if isinstance(answer, Unknown):
            return answer, f"could not be confirmed: {answer.reason}"
        return answer, None if isinstance(answer, NotFound) else f"{known_id[:12]} still exists"

    def _inspect_renamed(
        self, name: ContainerName, after: ContainerName, view: BooksIndex
    ) -> tuple[Container | NotFound | Unknown, str | None]:
        """Whether `name` is named `after` now, and the old name is still as decided."""
        known_id = view.checkpoint.identities[name].id
        answer = self._world.engine.look_up(name, known_id)
        if isinstance(answer, Unknown):
            return answer, f"could not be confirmed: {answer.reason}"
        if not isinstance(answer, Container) or (answer.id, answer.name) != (known_id, after):
            return answer, f'container {known_id[:12]} is no longer named "{after}"'
        answer = self._world.engine.look_up(name, None)
        successor = view.find_container(name)
        if successor is None and not isinstance(answer, NotFound):
            return answer, f'could not be confirmed that the name "{name}" is free again'
        if successor is not None and not (
            isinstance(answer, Container) and answer.id == successor.id
        ):
            return answer, f'container {successor.id[:12]} is no longer named "{name}"'
        return answer, None

    def _write_change(self, decision: Decision, proven: Sequence[Drift]) -> None:
        world, entered = self._world, 0
        for _ in range(ATTEMPTS):
            if stale := self._describe_staleness(decision):
                self._postponed |= {drift.key: stale for drift in proven}
                return
            decision, due = self._decide_again(decision, proven)
            self._postponed |= _no_longer_due(proven, due)
            if not due:
                return
            books = decision.expected_books(due)
            ids = history.begin_entries(world, decision, due, books, first=entered)
            entered += len(ids)
            try:
                state = _write_state(decision, books, world)
            except BooksChanged as changed:
                history.close_entries(world, dict.fromkeys(ids, str(changed)))
                continue
            except Ds01Error as error:
                history.close_entries(world, dict.fromkeys(ids, str(error)))
                raise
            self._written = due
            self._finish_change(due, ids, books, state)
            return
        raise BooksChanged(
            f"another writer changed the state file in each of {ATTEMPTS} attempts to write it"
        )

    def _describe_staleness(self, decision: Decision) -> str:
        """Why the snapshot is too old to act on, or ""."""
        # This process may have been stopped in between (SIGSTOP, a frozen control group) while
        # containers came and went (decision 150).
        age = self._world.clock.now().boot - decision.snapshot.now.boot
        return f"the snapshot is {age:.0f} s old" if age > longest_break_s(self._config) else ""

    def _finish_change(
        self,
        due: Sequence[Drift],
        ids: Sequence[str],
        books: ExpectedBooks,
        state: AllocatorState | None,
    ) -> None:
        """After the state is written: write the metadata, verify, close the entries."""
        broken = _write_records(books, self._world)
        bookings = None if state is None else _list_bookings(state)
        outcomes: dict[str, str | None] = {}
        for entry, drift in zip(ids, due, strict=True):
            wrong = next((broken[n] for n in sorted(drift.names) if n in broken), None)
            failure = wrong or _verify_bookings(drift, bookings)
            if failure is not None:
                self._failed[drift.key] = failure
            # Decision 68: the entry of a rename is closed after the checkpoint is saved.
            if drift.renamed_to is None:
                outcomes[entry] = failure
            elif wrong is not None:
                self._unfinished = True
            else:
                self._open_entries.append(entry)
        try:
            history.close_entries(self._world, outcomes)
        except Ds01Error as error:  # the repair is made; recovery closes the entry
            self._troubles.append(str(error))

    def _decide_again(
        self, decision: Decision, proven: Sequence[Drift]
    ) -> tuple[Decision, tuple[Drift, ...]]:
        """Read the books again; if they changed, decide again and keep only confirmed drifts."""
        world, snapshot = self._world, decision.snapshot
        names = None if snapshot.names is None else snapshot.names.union(*(d.names for d in proven))
        # The operations log too: a wrapper announces a creation there before it books anything.
        fresh = replace(
            snapshot,
            state=world.state.read(),
            metadata=world.metadata.read(names),
            operations=world.operations.read(),
        )
        if _book_versions(fresh) != _book_versions(snapshot):
            decision = decide(fresh, self._memory, self._config)
        allowed = {drift.repair_key for drift in proven}
        return decision, _select_whole_renames(decision.due_drifts, allowed)


def _select_whole_renames(due: Sequence[Drift], allowed: set[RepairKey]) -> tuple[Drift, ...]:
    """The allowed drifts of `due`; of swapped names all or none."""
    groups = repair_groups(due)
    parts = {groups[d.key] for d in due if d.renamed_to and d.repair_key not in allowed}
    return tuple(d for d in due if d.repair_key in allowed and groups[d.key] not in parts)


def _book_versions(snapshot: Snapshot) -> tuple[object, ...]:
    return _state_version(snapshot.state), snapshot.metadata, snapshot.operations


def _state_version(state: AllocatorState | Unreadable | Unknown) -> tuple[str, object]:
    if isinstance(state, Unknown):
        return ("unknown", state.reason)
    return (state.digest, state.merge if isinstance(state, AllocatorState) else None)


def _no_longer_due(proven: Iterable[Drift], due: Iterable[Drift]) -> dict[DriftKey, str]:
    still_due = {drift.key for drift in due}
    return {d.key: "the books changed meanwhile" for d in proven if d.key not in still_due}


def _write_state(decision: Decision, books: ExpectedBooks, world: World) -> AllocatorState | None:
    state = decision.snapshot.state
    if books.state is None or isinstance(state, Unknown):
        return state if isinstance(state, AllocatorState) else None
    return world.state.write(books.state, onto=Digest(state.digest))


def _write_records(books: ExpectedBooks, world: World) -> dict[ContainerName, str]:
    """Write and remove metadata files; gives the failures by name."""
    # All texts are rendered before the first write: of swapped names each base is the other's file.
    texts = {
        change.name: world.metadata.render_record(change.record, base=change.base)
        for change in books.records
        if change.record is not None and change.base is not None
    }
    outcomes = {
        change.name: _write_record(change, texts.get(change.name), world)
        for change in books.records
    }
    return {name: why for name, why in outcomes.items() if why is not None}


def _write_record(change: RecordChange, text: str | None, world: World) -> str | None:
    try:
        if text is not None:
            world.metadata.restore_text(change.name, text, onto=change.onto)
        elif change.record is not None:
            world.metadata.write(change.record, onto=change.onto)
        elif change.onto is not None:
            world.metadata.remove(change.name, onto=change.onto)
    except Ds01Error as error:
        return str(error)
    return None


_Bookings = frozenset[tuple[ContainerName, SlotId]]


def _list_bookings(state: AllocatorState) -> _Bookings:
    return frozenset((name, slot.id) for slot in state.slots.values() for name in slot.containers)


def _verify_bookings(drift: Drift, bookings: _Bookings | None) -> str | None:
    """Why the state file is not as it should be after the write; None if it is."""
    if bookings is None or drift.kind is Kind.UNREADABLE_STATE:
        return None
    if drift.taken & bookings - drift.given:
        return "another writer restored the booking right after the write"
    if drift.given - bookings:
        return "another writer removed the booking right after the write"
    return None
