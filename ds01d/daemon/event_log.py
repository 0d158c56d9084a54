"""The operations log of the daemon: every event of Docker's once, in order, and ds01d's own lines.

Start, stop, removal and creation of DS01 containers, also when done by hand. A wrapper writes its
own line around the command, before anything else happens to that container; so an event waits a
moment, or until the next one of its container, and is written only if nobody else has.
What the stream did not deliver is added from what the containers of a sweep show. Decides nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from typing import Final, NamedTuple, Protocol

from ds01d.daemon.logged_lines import LoggedLines, add_bounded
from ds01d.decide.event_lines import (
    CREATED,
    OPERATIONS,
    WRITER,
    ContainerEvent,
    find_missed,
    format_utc,
)
from ds01d.decide.index import USER_LABELS, BooksIndex, is_login, parse_uid
from ds01d.errors import Ds01Error
from ds01d.model.books import Attempt, LogLine
from ds01d.model.containers import Container, Engine, has_ds01_labels
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Unknown, Wall
from ds01d.reconcile.reconciler import Report

WAIT_S: Final = 3.0
QUICK_S: Final = 0.3
"""By then a wrapper has mostly logged what it did."""
RETRY_S: Final = 5.0
OUTCOME_S: Final = 60.0
"""container-create logs the outcome when the container has started; unless it was killed."""
_MAX_PENDING: Final = 10_000
_CREATE_COMMAND: Final = "container-create"

Labels = Mapping[str, str]


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


class LogListener(Protocol):
    """Who follows the lines of the log."""

    def begin(self) -> None: ...
    def learn(self, line: LogLine) -> None: ...


class LogPort(Protocol):
    """The operations log, as far as it is needed here."""

    def follow(self, listener: LogListener) -> None: ...
    def append_all(self, lines: Iterable[LogLine]) -> None: ...
    def flush(self) -> tuple[bool, int]: ...
    def read(self) -> Mapping[ContainerName, Attempt] | Unknown: ...


@dataclass(slots=True)
class _PendingEvent:
    """An event that waits for a wrapper's line; `followed`: the next of its container is there."""

    heard: Boot
    event: ContainerEvent
    labels: Labels
    followed: bool = False


class _MissingLine(NamedTuple):
    """An event that is to have its line; `note`: its identity, or how else it is known."""

    event: ContainerEvent
    labels: Labels
    note: str


class EventLog:
    """Takes events in the stream's thread; everything else is the worker's.

    It is the port for the operations log, too: a line of ds01d's own about a container comes after
    the events of that container that led to it.
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
        self._users = users
        self._wall, self._boot = wall, boot
        self._lines = LoggedLines(wall)
        self._lock = threading.Lock()
        self._waiting: list[_PendingEvent] = []
        self._last: dict[ContainerName, _PendingEvent] = {}
        self._hurried = False
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._lost = 0
        self._retry_at = Boot(0.0)
        self._flush_at = inf
        self._pause_s = 0.0
        self._unsent = 0
        self._view: BooksIndex | None = None
        self._booked: frozenset[ContainerName] = frozenset()
        self._absent: Mapping[ContainerName, Boot] = {}
        log.follow(self._lines)

    # --- from the stream

    def hear(self, event: ObservedEvent) -> None:
        """Keep an event that is worth a line, and was not heard before."""
        operation, name = OPERATIONS.get(event.action), event.name
        if operation is None or name is None or not self._is_ours(name, event.labels):
            return
        log_event = ContainerEvent(
            action=event.action, operation=operation, id=event.id, name=name, at=event.at
        )
        with self._lock:
            if log_event.identity in self._heard:
                return
            add_bounded(self._heard, log_event.identity, None)
            if len(self._waiting) < _MAX_PENDING:
                self._keep(_PendingEvent(self._boot(), log_event, event.labels))
            else:
                self._lost += 1

    def _keep(self, waiting: _PendingEvent) -> None:
        """Nobody logs the event before any more: its line has to be there before the next one's."""
        name = waiting.event.name
        if (before := self._last.get(name)) is not None:
            before.followed = self._hurried = True
        self._last[name] = waiting
        self._waiting.append(waiting)

    def _is_ours(self, name: ContainerName, labels: Labels) -> bool:
        return has_ds01_labels(labels) or parse_uid(name) is not None or name in self._booked

    # --- the port

    def read(self) -> Mapping[ContainerName, Attempt] | Unknown:
        """The attempts that matter."""
        return self._log.read()

    def append(self, line: LogLine) -> None:
        """A line of ds01d's own, after the events of its container. Raises `WriteFailed`."""
        failed = self._write(at_once=False, about=ContainerName(line.container))
        if failed is not None:
            raise failed
        self._log.read()
        self._log.append_all([self._in_order(line)])
        self._flush_at = 0.0

    # --- writing

    def wait_s(self) -> float:
        """How long `write` may wait to be called."""
        with self._lock:
            first = self._waiting[0].heard + WAIT_S if self._waiting else inf
            first = -inf if self._hurried else first
        return max(0.0, min(max(first, self._retry_at), self._flush_at) - self._boot())

    def write(self, *, at_once: bool = False) -> str:
        """Write what has waited long enough, or all there is; gives the problem met, "" if none.

        One look at what others have written, and one write: a thousand events in a second are no
        reason to keep a release waiting. What cannot be written now is tried again.
        """
        failed = self._write(at_once=at_once, about=None)
        problems = [] if failed is None else [str(failed)]
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:
            problems.append(f"{lost} events missing in the operations log: too many at once")
        if self._boot() >= self._flush_at:
            problems += self._flush()
        return "; ".join(problems)

    def _flush(self) -> Iterator[str]:
        """Give syslog what it has not taken; ever more rarely while it takes nothing."""
        is_empty, lost = self._log.flush()
        self._pause_s = 0.0 if is_empty else min(2 * self._pause_s + 0.1, RETRY_S)
        self._flush_at = inf if is_empty else self._boot() + self._pause_s
        if lost > self._unsent:
            yield f"{lost - self._unsent} lines of the operations log are missing in syslog"
            self._unsent = lost

    def _write(self, *, at_once: bool, about: ContainerName | None) -> Ds01Error | None:
        """Write the events that have waited long enough, and those of one container."""
        now = self._boot()
        if now < self._retry_at and not at_once:
            return None
        with self._lock:
            waiting, self._hurried = tuple(self._waiting), False
        ripe = _select_due(waiting, now, inf if at_once else WAIT_S, about)
        if not ripe:
            return None
        self._log.read()
        logged = self._lines.logged([entry.event for entry in waiting])
        left = [entry for entry in waiting if entry.event.identity not in logged]
        wanted = [
            entry for entry in ripe if entry.event.identity not in logged and self._is_wanted(entry)
        ]
        failed: Ds01Error | None = None
        self._retry_at = Boot(0.0)
        try:
            self._put(
                _MissingLine(entry.event, entry.labels, entry.event.identity) for entry in wanted
            )
            done = set(map(id, ripe))
            left = [entry for entry in left if id(entry) not in done]
        except Ds01Error as error:
            self._retry_at, failed = Boot(now + RETRY_S), error
        with self._lock:
            self._waiting = left + self._waiting[len(waiting) :]
            self._last = {entry.event.name: entry for entry in self._waiting}
        return failed

    def _is_wanted(self, entry: _PendingEvent) -> bool:
        """Not the steps of a creation under way: its wrapper logs that, and mostly its end, too."""
        event, pending = entry.event, self._lines.creating.get(entry.event.name)
        if event.operation != CREATED:
            return pending is None or has_ds01_labels(entry.labels)
        return (
            pending is not None
            and has_ds01_labels(entry.labels)
            and pending.at <= event.at
            and not pending.details.startswith(_CREATE_COMMAND)
        )

    def _put(self, additions: Iterable[_MissingLine]) -> None:
        """Write a line for each event, in one write. Raises `WriteFailed`."""
        lines: list[LogLine] = []
        for event, labels, note in additions:
            line = self._in_order(self._line(event, labels, f"{WRITER}: {note}"))
            self._lines.newest = line.at
            lines.append(line)
        if lines:
            self._log.append_all(lines)
            self._flush_at = 0.0

    def _line(self, event: ContainerEvent, labels: Labels, details: str) -> LogLine:
        return LogLine(
            at=event.at,
            operation=event.operation,
            user=self._user(event.name, labels),
            container=event.name,
            gpu=self._slots(event.name, labels),
            status="success",
            details=details,
        )

    def _in_order(self, line: LogLine) -> LogLine:
        """The line, not before the last one of the file, unless that is ahead of the clock.

        Others may have logged while an event waited for them; its own time stays in the details.
        """
        if line.at < self._lines.newest <= self._wall():
            return replace(line, at=self._lines.newest)
        return line

    def _user(self, name: ContainerName, labels: Labels) -> str:
        """Whose it is, as far as is known: the uid in the name counts, a label only without it."""
        if self._view is not None and (user := self._view.find_user(name)) is not None:
            return user
        if (uid := parse_uid(name)) is not None:  # of a container that no pass has seen yet
            return self._users(frozenset((uid,))).get(uid, "unknown")
        claims = filter(None, map(labels.get, USER_LABELS))
        return next(filter(is_login, claims), "unknown")

    def _slots(self, name: ContainerName, labels: Labels) -> str:
        """What is booked. A label says of that what its container's maker wrote.

        It is written down only as long as no pass has read the books.
        """
        if self._view is not None:
            return ",".join(sorted(self._view.find_booked_slots(name))) or "N/A"
        return labels.get("ds01.gpu.slots") or labels.get("ds01.gpu.allocated") or "N/A"

    # --- from a pass

    def compare(self, report: Report, absence_grace_s: float) -> str:
        """Add what the containers of a sweep show and no event did; gives the problem, or "".

        A removal counts once the trusted engine has not listed the container for the absence grace.
        """
        view, engine = report.decision.index, report.decision.snapshot.docker
        if view is not None:
            self._view, self._booked = view, frozenset(view.booked_slots)
        if not isinstance(engine, Engine) or report.memory.stranger is not None:
            self._absent = {}
            return ""
        if not report.sweep:
            return ""
        self._log.read()
        additions = chain(
            self._created(engine), self._missed(engine), self._vanished(engine, absence_grace_s)
        )
        try:
            self._put(sorted(additions, key=lambda addition: addition.event.at))
        except Ds01Error as error:
            return str(error)
        return ""

    def _is_settled(self) -> Callable[[ContainerName, Wall | None, float], bool]:
        """Whether no event of a name is waiting, and its last change is that many seconds old."""
        with self._lock:
            busy = {entry.event.name for entry in self._waiting}
        now = self._wall()
        return lambda name, at, age_s: name not in busy and at is not None and at <= now - age_s

    def _created(self, engine: Engine) -> Iterator[_MissingLine]:
        """Creations that are pending in the log although their container is there."""
        is_settled = self._is_settled()
        for name, line in tuple(self._lines.creating.items()):
            container = engine.by_name.get(name)
            if container is None or not container.labelled or container.created is None:
                continue
            age_s = OUTCOME_S if line.details.startswith(_CREATE_COMMAND) else 2 * WAIT_S
            if container.created >= line.at and is_settled(name, container.created, age_s):
                event = ContainerEvent(
                    action="",
                    operation=CREATED,
                    id=container.id,
                    name=name,
                    at=container.created,
                )
                note = f"container {container.id[:12]} exists since {format_utc(container.created)}"
                yield _MissingLine(event, container.labels, note)

    def _missed(self, engine: Engine) -> Iterator[_MissingLine]:
        """Starts and stops that Docker's times show."""
        is_settled = self._is_settled()
        for container in engine.containers.values():
            name = container.name
            under_way = name in self._lines.creating and not container.labelled
            if under_way or not self._is_ours(name, container.labels):
                continue
            if not is_settled(name, _last_change(container), 2 * WAIT_S):
                continue
            for event in find_missed(
                container, self._lines.lives.get(name), since=self._lines.since
            ):
                field = "StartedAt" if event.operation == "start" else "FinishedAt"
                note = f"no event received; {field} of {event.id[:12]} is {format_utc(event.at)}"
                yield _MissingLine(event, container.labels, note)

    def _vanished(self, engine: Engine, grace_s: float) -> Iterator[_MissingLine]:
        """Containers that exist by an event in the log, and that are gone without one."""
        listed = {container_id[:12] for container_id in engine.containers}
        gone = {
            name: life
            for name, life in self._lines.lives.items()
            if life.id and life.operation != "remove" and life.id not in listed
        }
        now, is_settled = self._boot(), self._is_settled()
        self._absent = {name: self._absent.get(name, now) for name in gone}
        for name, life in gone.items():
            if now - self._absent[name] < grace_s or not is_settled(
                name, life.newest_at, 2 * WAIT_S
            ):
                continue
            operations: Sequence[str] = ("remove",)
            if life.operation == "start":
                operations = ("stop", "remove")
            for operation in operations:
                event = ContainerEvent(
                    action="",
                    operation=operation,
                    id=ContainerId(life.id),
                    name=name,
                    at=self._wall(),
                )
                yield _MissingLine(event, {}, f"no event received; Docker does not list {life.id}")


def _select_due(
    waiting: Sequence[_PendingEvent], now: Boot, wait_s: float, about: ContainerName | None
) -> list[_PendingEvent]:
    """The events whose line is due, oldest first: with one, also those before it.

    But not those that were heard just now: their wrappers are about to log them.
    """

    def is_due(entry: _PendingEvent) -> bool:
        return (
            wait_s == inf
            or now >= entry.heard + wait_s
            or entry.followed
            or entry.event.name == about
        )

    newest = max((entry.event.at for entry in waiting if is_due(entry)), default=Wall(0.0))
    ripe = [
        entry
        for entry in waiting
        if is_due(entry) or (entry.event.at <= newest and now >= entry.heard + QUICK_S)
    ]
    return sorted(ripe, key=lambda entry: entry.event.at)


def _last_change(container: Container) -> Wall | None:
    times = (container.started, container.finished)
    return max((at for at in times if at is not None), default=None)
