"""Writes Docker's container events into the operations log: each once, in order.

Creation, start, stop and removal of DS01 containers, also by hand. A wrapper command logs its own
line, so an event waits 3 s, or until the next event of its container, and is written only if no
other writer has logged it. Events that the stream missed are added after a sweep. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Final, Protocol

from ds01d.daemon.copies_flush import CopiesFlush
from ds01d.daemon.logged_lines import LoggedLines
from ds01d.daemon.missed_events import (
    CREATE_COMMAND,
    WAIT_S,
    Labels,
    MissedEventFinder,
    MissingLine,
)
from ds01d.daemon.pending_events import PendingEvent, PendingEvents, select_due
from ds01d.decide.event_lines import CREATED, OPERATIONS, WRITER, ContainerEvent
from ds01d.decide.index import BooksIndex
from ds01d.decide.ownership import is_login, parse_uid
from ds01d.errors import Ds01Error
from ds01d.model.books import Attempt, LogLine
from ds01d.model.container_labels import has_ds01_labels, list_user_labels
from ds01d.model.containers import Engine
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Unknown, Wall
from ds01d.reconcile.report import Report

RETRY_S: Final = 5.0


class ObservedEvent(Protocol):
    """An event, as the engine's adapter gives it. `at` is the engine's clock."""

    @property
    def action(self) -> str: ...
    @property
    def id(self) -> ContainerId: ...
    @property
    def name(self) -> ContainerName | None: ...
    @property
    def labels(self) -> Labels: ...
    @property
    def at(self) -> Wall: ...


class LogPort(Protocol):
    """The operations log, as far as it is needed here."""

    def follow(self, listener: LoggedLines) -> None: ...
    def append_all(self, lines: Iterable[LogLine]) -> None: ...
    def flush(self) -> tuple[bool, Sequence[str]]: ...
    def read(self) -> Mapping[ContainerName, Attempt] | Unknown: ...


class EventLog:
    """Takes events in the stream's thread; the worker does everything else.

    It is also the port for ds01d's own lines, which come after the events that caused them.
    """

    def __init__(
        self,
        log: LogPort,
        wall: Callable[[], Wall],
        boot: Callable[[], Boot],
        users: Callable[[frozenset[int]], Mapping[int, str]] = lambda _: {},
    ) -> None:
        """`users`: the logins of uids."""
        self._log = log
        self._find_logins = users
        self._wall, self._boot = wall, boot
        self._lines = LoggedLines(wall)
        self._pending = PendingEvents()
        self._retry_at = Boot(0.0)
        self._copies = CopiesFlush(log.flush, boot)
        self._index: BooksIndex | None = None
        self._booked: frozenset[ContainerName] = frozenset()
        self._missed_events = MissedEventFinder(self._lines, wall, boot)
        log.follow(self._lines)

    # --- from the stream

    def on_event(self, event: ObservedEvent) -> None:
        """Queue an event that belongs into the log and was not received before."""
        operation, name = OPERATIONS.get(event.action), event.name
        if operation is None or name is None or not self._is_ours(name, event.labels):
            return
        log_event = ContainerEvent(
            action=event.action, operation=operation, id=event.id, name=name, at=event.at
        )
        self._pending.add(PendingEvent(self._boot(), log_event, event.labels))

    def _is_ours(self, name: ContainerName, labels: Labels) -> bool:
        return has_ds01_labels(labels) or parse_uid(name) is not None or name in self._booked

    # --- the port

    def read(self) -> Mapping[ContainerName, Attempt] | Unknown:
        """The attempts that matter."""
        return self._log.read()

    def append(self, line: LogLine) -> None:
        """Append a line of ds01d, after the events of its container. Raises `WriteFailed`."""
        # The line of a release must not stand before the event that caused it.
        failed = self._write_due(at_once=False, about=ContainerName(line.container))
        if failed is not None:
            raise failed
        self._log.read()
        self._log.append_all([self._keep_order(line)])
        self._copies.request()

    # --- writing

    def wait_s(self) -> float:
        """How long `write` may wait to be called."""
        due = max(self._pending.next_due(), self._retry_at)
        return max(0.0, min(due, self._copies.next_at) - self._boot())

    def write_due(self, *, at_once: bool = False) -> str:
        """Write the lines that are due, or all of them; gives the failure, or "".

        What cannot be written now is tried again.
        """
        failed = self._write_due(at_once=at_once, about=None)
        problems = [] if failed is None else [str(failed)]
        if lost := self._pending.take_dropped():
            problems.append(f"{lost} events missing in the operations log: too many at once")
        problems += self._copies.run_if_due()
        return "; ".join(problems)

    def _write_due(self, *, at_once: bool, about: ContainerName | None) -> Ds01Error | None:
        """Write the events that are due, and all of the container `about`."""
        # One read and one write for all of them: a thousand events in a second must not delay a
        # release.
        now = self._boot()
        if now < self._retry_at and not at_once:
            return None
        waiting = self._pending.list_all()
        ripe = select_due(waiting, now, inf if at_once else WAIT_S, about)
        if not ripe:
            return None
        self._log.read()
        finished = self._lines.find_logged([pending.event for pending in waiting])
        wanted = [
            pending
            for pending in ripe
            if pending.event.identity not in finished and self._is_wanted(pending)
        ]
        failed: Ds01Error | None = None
        self._retry_at = Boot(0.0)
        try:
            self._append_lines(
                MissingLine(pending.event, pending.labels, pending.event.identity)
                for pending in wanted
            )
            finished |= {pending.event.identity for pending in ripe}
        except Ds01Error as error:
            self._retry_at, failed = Boot(now + RETRY_S), error
        self._pending.remove(finished, among=len(waiting))
        return failed

    def _is_wanted(self, pending: PendingEvent) -> bool:
        """Whether an event gets a line; not the steps of a creation, which its wrapper logs."""
        event, creation = pending.event, self._lines.creating.get(pending.event.name)
        is_finished = has_ds01_labels(pending.labels)
        if event.operation != CREATED:
            return creation is None or is_finished
        return (
            creation is not None
            and is_finished
            and creation.at <= event.at
            and not creation.details.startswith(CREATE_COMMAND)
        )

    def _append_lines(self, additions: Iterable[MissingLine]) -> None:
        """Write a line for each event, in one write. Raises `WriteFailed`."""
        lines: list[LogLine] = []
        for event, labels, note in additions:
            line = self._keep_order(self._build_line(event, labels, f"{WRITER}: {note}"))
            self._lines.newest = line.at
            lines.append(line)
        if lines:
            self._log.append_all(lines)
            self._copies.request()

    def _build_line(self, event: ContainerEvent, labels: Labels, details: str) -> LogLine:
        return LogLine(
            at=event.at,
            operation=event.operation,
            user=self._find_user(event.name, labels),
            container=event.name,
            gpu=self._find_slots(event.name, labels),
            status="success",
            details=details,
        )

    def _keep_order(self, line: LogLine) -> LogLine:
        """The line with a time not before the last line of the file."""
        # Decision 120: others may have logged while the event waited; its own time stays in the
        # details. A last line ahead of the clock does not count.
        if line.at < self._lines.newest <= self._wall():
            return replace(line, at=self._lines.newest)
        return line

    def _find_user(self, name: ContainerName, labels: Labels) -> str:
        """The user of a container, or "unknown"."""
        # Decision 136: a label counts only where the name has no uid, because anybody can set it.
        if self._index is not None and (user := self._index.find_user(name)) is not None:
            return user
        if (uid := parse_uid(name)) is not None:  # of a container that no pass has seen yet
            return self._find_logins(frozenset((uid,))).get(uid, "unknown")
        return next(filter(is_login, list_user_labels(labels)), "unknown")

    def _find_slots(self, name: ContainerName, labels: Labels) -> str:
        """The booked slots; the labels only before the first pass has read the books."""
        if self._index is not None:
            return ",".join(sorted(self._index.find_booked_slots(name))) or "N/A"
        return labels.get("ds01.gpu.slots") or labels.get("ds01.gpu.allocated") or "N/A"

    # --- from a pass

    def add_missing_lines(self, report: Report, absence_grace_s: float) -> str:
        """Add the events that a sweep shows and the stream missed; gives the failure, or ""."""
        index, engine = report.decision.index, report.decision.snapshot.docker
        if index is not None:
            self._index, self._booked = index, frozenset(index.booked_slots)
        # Another engine does not list the containers of this one: none of them was removed.
        if not isinstance(engine, Engine) or report.checkpoint.untrusted_engine is not None:
            self._missed_events.forget_absences()
            return ""
        if not report.is_sweep:
            return ""
        self._log.read()
        waiting = self._pending.list_names()
        additions = self._missed_events.find(engine, waiting, self._is_ours, absence_grace_s)
        try:
            self._append_lines(sorted(additions, key=lambda addition: addition.event.at))
        except Ds01Error as error:
            return str(error)
        return ""
