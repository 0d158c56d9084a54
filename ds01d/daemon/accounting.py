"""Keeps the accounting after each pass: from the history, and from what the pass saw.

It follows the books and changes none of them. What fails here is a warning, and is done again
later: the place in the history up to which it is stored is where it continues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Final, Protocol

from ds01d.config import Config
from ds01d.daemon.slot_statuses import list_holders
from ds01d.decide.accounts import Accounts, ObservedBooking
from ds01d.decide.device_use import find_use, find_weight
from ds01d.decide.entry_bookings import read_entry_time
from ds01d.decide.history_outcomes import change_of
from ds01d.decide.index import BooksIndex
from ds01d.errors import AccountingBroken, Ds01Error
from ds01d.model.accounting import AccountingChange, AccountingProgress, OpenAccount, Pair, SlotUse
from ds01d.model.drift import Outcome
from ds01d.model.history import Entry, HistoryPlace, Phase
from ds01d.model.primitives import Boot, Now, UserName
from ds01d.reconcile.history import read_entries
from ds01d.reconcile.ports import StateDir
from ds01d.reconcile.report import Report

RETRY_S: Final = 30.0
_MOST_OPEN: Final = 1000
"""A change that is open while so many later ones are closed will not be closed any more."""


class AccountingStore(Protocol):
    """Where the accounting is kept. Raises `WriteFailed`, or `AccountingBroken`."""

    def load(self) -> OpenAccount: ...

    def save(
        self, changes: Sequence[AccountingChange], progress: AccountingProgress, next_id: int
    ) -> None: ...

    def set_aside(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingParts:
    """What it works with. `find_record_user`: the user in the text of a record."""

    store: AccountingStore
    find_record_user: Callable[[str], UserName | None]


class Accounting:
    """The accounting of one configuration. For the worker's thread."""

    def __init__(self, parts: AccountingParts, state_dir: StateDir, config: Config) -> None:
        self._store, self._state_dir = parts.store, state_dir
        self._find_record_user = parts.find_record_user
        # Elsewhere others book, too, or Docker alone knows who has what.
        self._is_history_whole = config.is_only_writer and config.books.kind == "files"
        self._accounts: Accounts | None = None
        self._progress = AccountingProgress()
        # Begun and not closed: what it did counts once its outcome is known.
        self._pending: dict[str, tuple[Entry, HistoryPlace | None]] = {}
        self._read_to: HistoryPlace | None = None
        self._is_watching = False
        self._retry_at = Boot(-math.inf)

    def record_pass(self, report: Report) -> str:
        """Take over what a pass saw and did; the failure, or "". Never raises."""
        now = report.decision.snapshot.now
        if now.boot < self._retry_at:
            return ""
        try:
            self._record(report, now)
        except Ds01Error as error:
            return self._give_up(error, now)
        except Exception as error:  # noqa: BLE001 - or the worker would end, and with it repairs
            reason = f"the accounting failed: {type(error).__name__}: {error}"
            return self._give_up(Ds01Error(reason), now)
        return ""

    def save(self, now: Now) -> str:
        """Store everything; the failure, or ""."""
        try:
            self._save()
        except Ds01Error as error:
            return self._give_up(error, now)
        return ""

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def _give_up(self, error: Ds01Error, now: Now) -> str:
        """Forget what is not stored: it is read again, and nothing grows meanwhile."""
        self._accounts = None
        self._retry_at = Boot(now.boot + RETRY_S)
        if isinstance(error, AccountingBroken):
            # The next file takes what the history still has, so there is nothing to wait for.
            self._store.set_aside()
            self._retry_at = now.boot
        return str(error)

    def _record(self, report: Report, now: Now) -> None:
        # Decision 245: the history has the exact moments, a pass what nobody entered. In this
        # order, so that a pass begins and ends only what the history does not.
        accounts = self._accounts or self._load()
        accounts.see_clock(now)
        self._read_history(accounts, now)
        index = report.decision.index
        if index is None:
            accounts.lose_sight(now)
        else:
            accounts.observe(
                _list_uses(index, report),
                partial(_describe_booking, index),
                report.covers,
                now,
                self._progress.observed,
                is_continuous=self._is_watching,
            )
            # Only a sweep has seen all of them.
            if report.is_sweep:
                self._is_watching = True
                self._progress = replace(self._progress, observed=now)
        # Divided time alone can wait: what is lost of it is shown as unknown.
        if accounts.has_changes:
            self._save()

    def _load(self) -> Accounts:
        opened = self._store.load()
        self._progress, self._pending = opened.progress, {}
        # Between the stored moment and now nobody watched the books.
        self._read_to, self._is_watching = opened.progress.place, False
        self._accounts = Accounts(opened, self._find_record_user)
        return self._accounts

    def _save(self) -> None:
        if self._accounts is not None:
            # Or after a power failure the place may lie behind the end of the history.
            self._state_dir.sync_history()
            changes = self._accounts.take_changes()
            self._store.save(changes, self._progress, self._accounts.next_id)

    # --- the history

    def _read_history(self, accounts: Accounts, now: Now) -> None:
        """Take over the changes that were closed since the last look, as they were closed."""
        is_first = self._progress.complete_since is None
        begin: Now | None = None
        closed: list[Entry] = []
        for place, line in self._state_dir.read_history_from(self._read_to):
            for entry in read_entries([line]):
                begin = begin or read_entry_time(entry)
                self._add_entry(entry, closed)
            self._read_to = place
        # As one change: in a rename a booking leaves one name and goes on under another.
        for _, entries in groupby(closed, change_of):
            accounts.apply_change([*entries], begin if is_first else None)
        applied = self._progress.applied | {entry.id for entry in closed}
        if len(applied) > _MOST_OPEN:
            self._pending.clear()
        # What is open is read again by the next process, and what was closed meanwhile is not.
        open_from = next((place for _, place in self._pending.values()), self._read_to)
        self._progress = replace(
            self._progress, place=open_from, applied=applied if self._pending else frozenset()
        )
        if is_first:
            is_whole = begin is not None and self._is_history_whole
            complete_since = accounts.correct(begin).wall if begin and is_whole else now.wall
            self._progress = replace(
                self._progress, complete_since=complete_since, sampled_since=now.wall
            )

    def _add_entry(self, entry: Entry, closed: list[Entry]) -> None:
        if entry.phase is Phase.BEGIN:
            self._pending[entry.id] = entry, self._read_to
            return
        begun, _ = self._pending.pop(entry.id, (None, None))
        # What a failed change did all the same, the next pass shows.
        if begun is None or entry.phase is not Phase.DONE:
            return
        # Stored already, while an older change was open, from which the reading begins again.
        if begun.id not in self._progress.applied:
            closed.append(begun)


def _list_uses(index: BooksIndex, report: Report) -> Mapping[Pair, SlotUse | None]:
    """The bookings in the books after a pass, of the containers that it covers."""
    repaired = [gated.drift for gated in report.drifts if gated.outcome is Outcome.DONE]
    return {
        (name, slot): find_use(name, slot, index)
        for slot, names in list_holders(index, repaired).items()
        for name in names
        if report.covers(name)
    }


def _describe_booking(index: BooksIndex, pair: Pair) -> ObservedBooking:
    name, slot = pair
    record, container = index.find_record(name), index.containers.get(name)
    begins = [] if record is None else [record.allocated_at]
    if container is not None:
        begins += [container.created, container.started]
    weight = find_weight(index.table.slots.get(slot))
    return ObservedBooking(user=index.find_booker(name), weight=weight, begins=begins)
