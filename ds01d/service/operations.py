"""What operators do with the whole of the books: here, or by the daemon that listens.

A caller that may write `state_dir` does it in this process, under the same locks as the daemon:
root has to be able to when the daemon hangs. Everybody else asks the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from ds01d.config import Config
from ds01d.documents.explain import Explanation, add_fleet, explain_subject
from ds01d.documents.history import HistoryRow, read_rows
from ds01d.documents.passes import PassDocument, build_pass_document, describe_wait
from ds01d.documents.published_drifts import with_published
from ds01d.documents.undo import UndoDocument, build_undo_document
from ds01d.errors import Ds01Error
from ds01d.model.primitives import Wall
from ds01d.reconcile.docker_books import with_current_books
from ds01d.reconcile.freezing import Freezer, FreezeResult, ThawResult
from ds01d.reconcile.ports import World
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report, join_reports
from ds01d.reconcile.settling import run_until_settled
from ds01d.reconcile.undo import Undoer
from ds01d.reporting.status import Status

ReadPublished = Callable[[Wall], tuple[Status | None, str]]
"""The last published status, and why it does not count ("" if it does)."""
Announce = Callable[[str], AbstractContextManager[None]]
"""Shows what is waited for, while it lasts."""


class Operations(Protocol):
    """Each raises `Ds01Error`: `Refused` where there is nothing to do."""

    def plan_pass(self) -> PassDocument:
        """What a pass would do now."""

    def explain_subject(self, name: str) -> Explanation:
        """Everything about a container or a slot."""

    def run_passes(self, timeout_s: float, announce: Announce) -> PassDocument:
        """Make a pass; with a timeout, passes until nothing waits for time alone."""

    def freeze_subject(
        self, subject: str | None, seconds: float | None, reason: str
    ) -> FreezeResult:
        """Stop repairs."""

    def thaw_subject(self, subject: str | None, *, engine: bool) -> ThawResult:
        """Allow repairs again; `engine`: trust the Docker engine in use now."""

    def undo_entry(self, entry: str, *, dry_run: bool) -> UndoDocument:
        """Undo a change of the history."""


class OwnOperations:
    """Does it in this process, in the name of `by`."""

    def __init__(
        self,
        world: World,
        config: Config,
        by: str,
        *,
        read_published: ReadPublished,
        read_history: Callable[[], Iterable[bytes]],
        sleep: Callable[[float], None],
    ) -> None:
        self._world, self._config, self._by = world, config, by
        self._read_published, self._read_history = read_published, read_history
        self._sleep = sleep

    def plan_pass(self) -> PassDocument:
        return build_pass_document(self.plan_report(), self._config)

    def plan_report(self) -> Report:
        """The report of a dry pass."""
        report = Reconciler(self._world, self._config).plan()
        published, problem = self._read_published(report.decision.snapshot.now.wall)
        # decision 104: a failed repair is in the published status only.
        return with_published(report, None if problem else published)

    def explain_subject(self, name: str) -> Explanation:
        report = self.plan_report()
        explanation = explain_subject(
            name, report, self._config, self.read_rows(), self._world.person_uid
        )
        published, problem = self._read_published(report.decision.snapshot.now.wall)
        return add_fleet(explanation, None if problem else published)

    def read_rows(self) -> tuple[HistoryRow, ...] | str:
        """The history, or why it cannot be read."""
        try:
            return tuple(read_rows(self._read_history()))
        except Ds01Error as error:
            return str(error)

    def run_passes(self, timeout_s: float, announce: Announce) -> PassDocument:
        run = Reconciler(self._world, self._config).run
        # Without a timeout one pass is the answer, whatever still waits.
        reports = (
            run_until_settled(
                run,
                self._world.clock,
                self._sleep,
                self._config,
                timeout_s=timeout_s,
                announce=lambda wait: announce(describe_wait(wait)),
            )
            if timeout_s
            else (run(),)
        )
        return build_pass_document(join_reports([*reports]), self._config)

    def freeze_subject(
        self, subject: str | None, seconds: float | None, reason: str
    ) -> FreezeResult:
        return Freezer(with_current_books(self._world, self._config), self._by).freeze(
            subject, seconds, reason
        )

    def thaw_subject(self, subject: str | None, *, engine: bool) -> ThawResult:
        freezer = Freezer(with_current_books(self._world, self._config), self._by)
        return freezer.trust_engine() if engine else freezer.thaw(subject)

    def undo_entry(self, entry: str, *, dry_run: bool) -> UndoDocument:
        undoer = Undoer(self._world, self._config)
        result = undoer.plan(entry, self._by) if dry_run else undoer.undo(entry, self._by)
        return build_undo_document(entry, result)
