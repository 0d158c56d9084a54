"""Which events already have a line in the operations log.

Follows the file through the log's reader. Lines of ds01d carry the identity of their event
(decision 118); a line of another writer stands for one event at most (decision 119).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

from ds01d.decide.event_lines import (
    CREATED,
    WRITER,
    ContainerEvent,
    Life,
    extend_life,
    identity_in,
    is_outcome,
    match_lines,
)
from ds01d.model.books import LogLine
from ds01d.model.primitives import ContainerName, Wall

RECENT_S: Final = 60.0
"""An older line of another writer stands for no event of now."""
_MAX_ENTRIES: Final = 10_000
_LIFECYCLE_OPERATIONS: Final = frozenset({"start", "stop", "remove"})
_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class LoggedLines:
    """The log's lines so far.

    `lives`: what it shows of each container's life. `creating`: pending creations without an
    outcome. `newest`: the time of its last line. `since`: the newest line of ds01d from before this
    process, else the start of this process; what happened before that may never have been logged.
    """

    def __init__(self, wall: Callable[[], Wall]) -> None:
        self._wall = wall
        self._started_at = wall()
        self.since = self._started_at
        self.newest = Wall(0.0)
        self.lives: OrderedDict[ContainerName, Life] = OrderedDict()
        self.creating: OrderedDict[ContainerName, LogLine] = OrderedDict()
        self._written_ids: OrderedDict[str, None] = OrderedDict()
        self._unmatched_lines: list[LogLine] = []
        self._matched_lines: list[LogLine] = []
        self._replayed: Counter[LogLine] = Counter()

    # --- the listener of the log's reader

    def begin(self) -> None:
        """Start over: the log was rotated or replaced, its lines may come again."""
        # Lines that stand for an event already come again after a rotation, and must not stand for
        # another.
        self._replayed = Counter(self._matched_lines)
        self._matched_lines, self._unmatched_lines = [], []

    def learn(self, line: LogLine) -> None:
        """Add the next line of any writer."""
        self.newest = line.at
        # Decision 121: a log that a fresh installation finds is not completed backwards.
        if line.details.startswith(f"{WRITER}:") and line.at <= self._started_at:
            self.since = line.at
        self._track_creation(line)
        if not is_outcome(line):
            return
        if (identity := identity_in(line)) is not None:
            add_bounded(self._written_ids, identity[0], None)
        elif line.operation in _LIFECYCLE_OPERATIONS or line.operation == CREATED:
            self._add_unmatched(line)
        if line.operation in _LIFECYCLE_OPERATIONS:
            name = ContainerName(line.container)
            add_bounded(self.lives, name, extend_life(self.lives.get(name), line))

    def _track_creation(self, line: LogLine) -> None:
        name = ContainerName(line.container)
        match line.operation, line.status:
            case "create_start", "pending":
                add_bounded(self.creating, name, line)
            case "create_success" | "create_failed", _:
                self.creating.pop(name, None)
            case _:
                pass

    def _add_unmatched(self, line: LogLine) -> None:
        # Decision 119: a wrapper logs within seconds; an older line is of another start or stop.
        if line.at < self._wall() - RECENT_S:
            return
        if self._replayed[line] > 0:
            self._replayed[line] -= 1
            self._matched_lines.append(line)
        else:
            self._unmatched_lines.append(line)

    # --- for those who write

    def find_logged(self, events: Sequence[ContainerEvent]) -> frozenset[str]:
        """Identities of the events that have a line."""
        logged_ids = {event.identity for event in events if event.identity in self._written_ids}
        left = [event for event in events if event.identity not in logged_ids]
        matches = match_lines(left, self._unmatched_lines)
        in_order = sorted(range(len(left)), key=lambda place: left[place].at)
        newest = {left[place].name: left[place].at for place in in_order}
        unlogged = {
            left[place].name: left[place].at for place in reversed(in_order) if place not in matches
        }
        matched = {
            place: number
            for place, number in matches.items()
            if (event := left[place]).at < newest[event.name]
            or not self._is_hidden(event, unlogged.get(event.name))
        }
        used = set(matched.values())
        oldest = self._wall() - RECENT_S
        self._matched_lines += [self._unmatched_lines[number] for number in sorted(used)]
        self._matched_lines = [line for line in self._matched_lines if line.at >= oldest]
        self._unmatched_lines = [
            line
            for number, line in enumerate(self._unmatched_lines)
            if number not in used and line.at >= oldest
        ]
        logged_ids |= {left[place].identity for place in matched}
        # Decision 119: its line is taken, so no other line may stand for it.
        for identity in logged_ids:
            add_bounded(self._written_ids, identity, None)
        return frozenset(logged_ids)

    def _is_hidden(self, event: ContainerEvent, unlogged: Wall | None) -> bool:
        """Whether the log would end with an earlier event of the container than this one.

        `unlogged`: when the first event of its container without a line happened.
        """
        # Scripts read the last line of a container as its state, so this event is logged again.
        life = self.lives.get(event.name)
        behind = life is not None and bool(life.id) and life.operation != event.operation
        behind = behind and life is not None and life.last_at < event.at
        earlier = unlogged is not None and unlogged < event.at
        return event.operation in _LIFECYCLE_OPERATIONS and (behind or earlier)


def add_bounded(entries: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    """Add an entry at the end; drops the oldest beyond 10,000."""
    entries.pop(key, None)
    entries[key] = value
    if len(entries) > _MAX_ENTRIES:
        entries.popitem(last=False)
