"""What Docker's events tell, as lines of the operations log.

Start, stop and remove of DS01 containers, also when done by hand.

A wrapper writes its own line around the command; so each event waits a moment, and is written only
if nobody else has. Decides nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from typing import Final, Protocol

from ds01d.errors import Ds01Error
from ds01d.model.facts import Boot, ContainerName, Wall
from ds01d.model.records import LogLine

WAIT_S: Final = 3.0
LATELY_S: Final = 30.0
_MOST_WAITING: Final = 10_000
OPERATIONS: Final[Mapping[str, str]] = {"start": "start", "die": "stop", "destroy": "remove"}


class Happening(Protocol):
    """An event, as the engine's adapter gives it."""

    @property
    def action(self) -> str: ...
    @property
    def name(self) -> ContainerName | None: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class Log(Protocol):
    """The operations log, as far as it is needed here."""

    def append_all(self, lines: Iterable[LogLine]) -> None: ...
    def latest(self, *, now: Wall, within_s: float) -> Collection[tuple[str, str]]: ...


class EventLog:
    """Takes events in the stream's thread, writes lines in the worker's."""

    def __init__(self, log: Log, wall: Callable[[], Wall], boot: Callable[[], Boot]) -> None:
        self._log = log
        self._wall, self._boot = wall, boot
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Boot, Wall, Happening]] = deque(maxlen=_MOST_WAITING)

    def hear(self, event: Happening) -> None:
        """Keep an event that is worth a line.

        Only those of a finished DS01 container are: a creation in progress has no labels yet, and
        its wrapper tells of it.
        """
        labels = event.labels
        if event.action not in OPERATIONS or event.name is None:
            return
        if "aime.mlc" in labels or "ds01.managed" in labels:
            with self._lock:
                self._waiting.append((self._boot(), self._wall(), event))

    def wait_s(self) -> float:
        """How long `write` may wait to be called."""
        with self._lock:
            first = self._waiting[0][0] if self._waiting else inf
        return max(0.0, first + WAIT_S - self._boot())

    def write(self, *, at_once: bool = False) -> str:
        """Write what has waited long enough, or all there is; gives the trouble met, "" if none.

        One look at what others have written, and one write: a thousand events in a second are no
        reason to keep a release waiting.
        """
        ripe = self._ripe(WAIT_S if not at_once else 0.0)
        if not ripe:
            return ""
        told = self._log.latest(now=self._wall(), within_s=LATELY_S)
        lines: dict[tuple[str, str], LogLine] = {}
        for at, event in ripe:
            line = _line(at, event)
            key = (line.operation, line.container)
            if key not in told:
                lines.setdefault(key, line)
        try:
            if lines:
                self._log.append_all(lines.values())
        except Ds01Error as error:
            return str(error)
        return ""

    def _ripe(self, wait_s: float) -> list[tuple[Wall, Happening]]:
        now, ripe = self._boot(), []
        with self._lock:
            while self._waiting and now - self._waiting[0][0] >= wait_s:
                _, at, event = self._waiting.popleft()
                ripe.append((at, event))
        return ripe


def _line(at: Wall, event: Happening) -> LogLine:
    labels = event.labels
    user = labels.get("ds01.user") or labels.get("aime.mlc.USER") or labels.get("aime.mlc")
    slot = labels.get("ds01.gpu.slots") or labels.get("ds01.gpu.allocated")
    return LogLine(
        at=at,
        operation=OPERATIONS[event.action],
        user=user or "unknown",
        container=event.name or ContainerName(""),
        gpu=slot or "N/A",
        status="success",
        details=f"ds01d: seen in Docker's events ({event.action})",
    )
