"""Which lines the operations log lacks: of Docker's events, and of what containers show.

Pure. An event is identified by container ID, action and Docker's time for it, never by how long ago
a similar one was; what another writer has logged is matched with events one to one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Final

from ds01d.model.books import LogLine
from ds01d.model.containers import Container
from ds01d.model.primitives import ContainerId, ContainerName, Wall

WRITER: Final = "ds01d"
CREATED: Final = "create_success"
OPERATIONS: Final[Mapping[str, str]] = {
    "create": CREATED,
    "start": "start",
    "die": "stop",
    "destroy": "remove",
}
"""Docker's action → the operation that is logged for it."""

AFTER_S: Final = 4.0
"""A wrapper logs when its command has returned: its line may be this much later than the event."""
BEFORE_S: Final = 2.0
"""Or just before the command, and in whole seconds."""
_SLACK_S: Final = 1.5  # a line has whole seconds; Docker's event comes after the time in inspect
_UNANSWERED: Final = frozenset({"pending", "failed", "error"})
_IDENTITY = re.compile(
    rf"{WRITER}: Docker event ([a-z]+) of ([0-9A-Za-z_.-]{{1,12}})"
    r" at ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6})Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEvent:
    """Something that happened to a container. `at` is the engine's clock.

    `action` is Docker's, or "" where no event was received and Docker's facts alone show it.
    """

    action: str
    operation: str
    id: ContainerId
    name: ContainerName
    at: Wall

    @property
    def identity(self) -> str:
        """What no other event has; stands in the line, so that a restart finds it there."""
        return f"Docker event {self.action} of {self.id[:12]} at {format_utc(self.at)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """When the log last has each operation of a container.

    `id`: the first 12 characters of the container's ID in the last such line, "" if it has none.
    """

    operation: str
    id: str = ""
    started: Wall | None = None
    stopped: Wall | None = None
    removed: Wall | None = None

    @property
    def last_at(self) -> Wall:
        """The time of the last line."""
        times = {"start": self.started, "stop": self.stopped, "remove": self.removed}
        return times.get(self.operation) or Wall(0.0)

    @property
    def newest_at(self) -> Wall:
        times = (self.started, self.stopped, self.removed)
        return max((at for at in times if at is not None), default=Wall(0.0))


def format_utc(at: Wall) -> str:
    """An exact time, in UTC."""
    when = datetime.fromtimestamp(at, tz=timezone.utc)
    return f"{when:%Y-%m-%dT%H:%M:%S.%f}Z"


def identity_in(line: LogLine) -> tuple[str, str, Wall] | None:
    """The identity of the event that a line was written for, its container's ID and its time.

    None for the lines of other writers, and for those that no event stands behind.
    """
    match = _IDENTITY.match(line.details)
    if match is None:
        return None
    try:
        when = datetime.strptime(match[3], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return match[0].removeprefix(f"{WRITER}: "), match[2], Wall(when.timestamp())


def is_outcome(line: LogLine) -> bool:
    """Whether a line records a finished operation."""
    return line.status not in _UNANSWERED


def extend_life(life: Life | None, line: LogLine) -> Life:
    """The life with one line more: a start, a stop or a removal."""
    _, container, at = identity_in(line) or ("", "", line.at)
    before = replace(life or Life(operation=""), operation=line.operation, id=container)
    match line.operation:
        case "start":
            return replace(before, started=at)
        case "stop":
            return replace(before, stopped=at)
        case _:
            return replace(before, removed=at)


def match_lines(events: Sequence[ContainerEvent], lines: Sequence[LogLine]) -> Mapping[int, int]:
    """Events that others have logged → the line that did so, by their places: one to one.

    A line stands for the first event before it that has none yet, else for the first right after.
    """
    of_container: defaultdict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(events)), key=lambda place: events[place].at):
        of_container[events[place].name].append(place)
    logged: dict[int, int] = {}
    # One to one and in order: two starts within the window need two lines, or the second would stay
    # unlogged (decision 118).
    for number, line in enumerate(lines):
        for place in of_container.get(line.container, ()):
            late_s = line.at - events[place].at
            near = -1.0 - BEFORE_S <= late_s <= AFTER_S
            if near and place not in logged and events[place].operation == line.operation:
                logged[place] = number
                break
    return logged


def find_missed(
    container: Container, life: Life | None, *, since: Wall
) -> Iterator[ContainerEvent]:
    """What Docker's times show of a container, and no line does, oldest first.

    A container without a single line counts only from `since` on: the log may have begun later. A
    time that is older than what the log has of it brings nothing new.
    """
    logged_times = life or Life(operation="")
    started, finished = container.started, container.finished

    def is_new(at: Wall, logged: Wall | None) -> bool:
        # A log that was rotated or begins later must not be filled with the history of every old
        # container.
        return (life is not None or at >= since) and (logged is None or logged < at - _SLACK_S)

    def make_event(operation: str, at: Wall) -> ContainerEvent:
        return ContainerEvent(
            action="", operation=operation, id=container.id, name=container.name, at=at
        )

    start = started is not None and is_new(started, logged_times.started)
    stop = finished is not None and is_new(finished, logged_times.stopped)
    # FinishedAt of a container that runs is of the run before.
    if container.state.alive:
        if not start or started is None or logged_times.newest_at > started:
            return
        if (
            stop
            and finished is not None
            and logged_times.operation == "start"
            and finished < started
        ):
            yield make_event("stop", finished)
        yield make_event("start", started)
    elif stop and finished is not None and logged_times.newest_at <= finished + _SLACK_S:
        if start and started is not None and logged_times.newest_at <= started:
            yield make_event("start", started)
        yield make_event("stop", finished)
