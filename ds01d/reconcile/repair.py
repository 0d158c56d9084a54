"""Repairs the drifts that are due: confirm, lock, read again, write history, state and metadata.

Killed at any point it leaves the books as they were, or the state written and the metadata not
yet: the next pass finds the rest as drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ds01d.config import Config
from ds01d.decide.decision import Decision, decide
from ds01d.decide.drift_groups import repair_groups
from ds01d.decide.expected_books import ExpectedBooks
from ds01d.decide.gaps import longest_break_s
from ds01d.errors import BooksChanged, Ds01Error, HistoryFailed
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.drift import Drift, DriftKey, RepairKey
from ds01d.model.primitives import ContainerId, Unknown
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile import history
from ds01d.reconcile.book_writes import verify_bookings, write_records, write_state
from ds01d.reconcile.confirm import confirm_drifts
from ds01d.reconcile.history_entries import begin_entries
from ds01d.reconcile.ports import World
from ds01d.reconcile.transactions import ATTEMPTS


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """The outcome of the drifts that were due; `failed` and `postponed` by key, with the reason.

    `postponed`: contradicted when looked at again. `written`: in the state file now, even if the
    metadata or the verification failed. `history_failure`: why the history could not be written,
    so that nothing was done. `open_entries`: entries of renames, to be closed once the checkpoint
    is saved. `has_unfinished`: a rename was written in part; `recovery` finishes it. `living`:
    processes of containers reported as stopped or gone, found right before the write when the
    decision had not looked for them; nothing was written.
    """

    done: tuple[Drift, ...] = ()
    failed: Mapping[DriftKey, str] = field(default_factory=dict)
    postponed: Mapping[DriftKey, str] = field(default_factory=dict)
    written: tuple[Drift, ...] = ()
    warnings: tuple[str, ...] = ()
    history_failure: str = ""
    open_entries: tuple[str, ...] = ()
    has_unfinished: bool = False
    living: Mapping[ContainerId, int] | Unknown = field(default_factory=dict)


def repair_drifts(
    decision: Decision,
    due: Sequence[Drift],
    checkpoint: Checkpoint,
    world: World,
    config: Config,
    *,
    is_probed: bool,
) -> RepairResult:
    """Repair the drifts `due`. `checkpoint`: the checkpoint that was decided with.

    A failed write is an outcome, never an exception. `is_probed`: the decision already
    looked for living processes. If not, one that is found now ends the repair before anything is
    written.
    """
    return _Repair(world, checkpoint, config).run(decision, due, is_probed=is_probed)


class _Repair:
    """The repairs of one pass, with the outcomes so far."""

    def __init__(self, world: World, checkpoint: Checkpoint, config: Config) -> None:
        self._world = world
        self._checkpoint = checkpoint
        self._config = config
        self._failed: dict[DriftKey, str] = {}
        self._postponed: dict[DriftKey, str] = {}
        self._written: tuple[Drift, ...] = ()
        self._warnings: list[str] = []
        self._open_entries: list[str] = []
        self._unfinished = False

    def run(self, decision: Decision, due: Sequence[Drift], *, is_probed: bool) -> RepairResult:
        # Before the books' lock is taken: an inspect may take seconds, and allocations would wait.
        confirmation = confirm_drifts(decision, due, self._world)
        if confirmation.living and not is_probed:
            return RepairResult(living=confirmation.living)
        self._failed |= confirmation.failed
        self._postponed |= confirmation.postponed
        proven, history_failure = confirmation.proven, ""
        try:
            if proven:
                with self._world.state.lock():
                    self._write_change(decision, proven)
        except Ds01Error as error:
            self._failed |= {d.key: str(error) for d in proven if d not in self._written}
            # Invariant 9: no history, no action. Reported once, not as the failure of each drift.
            history_failure = str(error) if isinstance(error, HistoryFailed) else ""
        return RepairResult(
            done=tuple(d for d in self._written if d.key not in self._failed),
            failed=self._failed,
            postponed=self._postponed,
            written=self._written,
            warnings=tuple(self._warnings),
            history_failure=history_failure,
            open_entries=tuple(self._open_entries),
            has_unfinished=self._unfinished,
        )

    def _write_change(self, decision: Decision, proven: Sequence[Drift]) -> None:
        world, count = self._world, 0
        for _ in range(ATTEMPTS):
            if stale := self._describe_staleness(decision):
                self._postponed |= {drift.key: stale for drift in proven}
                return
            decision, due = self._decide_again(decision, proven)
            still_due = {drift.key for drift in due}
            changed = [drift.key for drift in proven if drift.key not in still_due]
            self._postponed |= dict.fromkeys(changed, "the books changed meanwhile")
            if not due:
                return
            books = decision.expected_books(due)
            ids: Sequence[str] = ()
            try:
                with world.state_dir.join_syncs():  # decision 217
                    ids = begin_entries(world, decision, due, books, first=count)
                    state = write_state(decision, books, world)
            # Another writer came in between: its change may be what this repair is about, so it is
            # decided again.
            except BooksChanged as error:
                history.close_entries(world, dict.fromkeys(ids, str(error)))
                count += len(ids)
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
        broken = write_records(books, self._world)
        bookings = None if state is None else state.list_bookings()
        derived = frozenset() if books.state is None else books.state.derived
        outcomes: dict[str, str | None] = {}
        for entry, drift in zip(ids, due, strict=True):
            # The booking has changed with the state; only the metadata is left for the next pass.
            record_failure = next((broken[n] for n in sorted(drift.names) if n in broken), None)
            failure = record_failure or verify_bookings(drift, bookings, derived)
            if failure is not None:
                self._failed[drift.key] = failure
            # Decision 68: the entry of a rename is closed after the checkpoint is saved.
            if drift.renamed_to is None:
                outcomes[entry] = failure
            elif record_failure is not None:
                self._unfinished = True
            else:
                self._open_entries.append(entry)
        try:
            history.close_entries(self._world, outcomes)
        except Ds01Error as error:  # the repair is made; recovery closes the entry
            self._warnings.append(str(error))

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
            decision = decide(fresh, self._checkpoint, self._config)
        # Only what was proven before the lock: a drift that the new books show has not been
        # inspected.
        allowed = {drift.repair_key for drift in proven}
        return decision, _select_whole_renames(decision.due_drifts, allowed)


def _select_whole_renames(due: Sequence[Drift], allowed: set[RepairKey]) -> tuple[Drift, ...]:
    """The allowed drifts of `due`; of swapped names all or none."""
    groups = repair_groups(due)
    incomplete = {groups[d.key] for d in due if d.renamed_to and d.repair_key not in allowed}
    return tuple(d for d in due if d.repair_key in allowed and groups[d.key] not in incomplete)


def _book_versions(snapshot: Snapshot) -> tuple[object, ...]:
    state = snapshot.state
    merge = state.merge if isinstance(state, AllocatorState) else None
    version = state.reason if isinstance(state, Unknown) else state.digest
    return type(state), version, merge, snapshot.metadata, snapshot.operations
