"""What Docker's events tell, as lines of the operations log.

Start, stop and remove of DS01 containers, also when done by hand.

A wrapper writes its own line around the command; so each event waits a moment, and is written only
if nobody else has. Decides nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
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

    def append(self, line: LogLine) -> None: ...
    def tail_seen(self, operation: str, container: str, *, now: Wall, within_s: float) -> bool: ...


class EventLog:
    """Takes events in the stream's thread, writes lines in the worker's."""

    def __init__(self, log: Log, wall: Callable[[], Wall], boot: Callable[[], Boot]) -> None:
        self._log = log
        self._wall, self._boot = wall, boot
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Boot, Wall, Happening]] = deque(maxlen=_MOST_WAITING)

    def hear(self, event: Happening) -> bool:
        """Whether the event will be worth a line.

        Only those of a finished DS01 container are: a creation in progress has no labels yet, and
        its wrapper tells of it.
        """
        labels = event.labels
        if event.action not in OPERATIONS or event.name is None:
            return False
        if "aime.mlc" not in labels and "ds01.managed" not in labels:
            return False
        with self._lock:
            self._waiting.append((self._boot(), self._wall(), event))
        return True

    def write(self, *, at_once: bool = False) -> str:
        """Write what has waited long enough, or all there is; gives the trouble met, "" if none."""
        trouble = ""
        while (one := self._next(WAIT_S if not at_once else 0.0)) is not None:
            at, event = one
            try:
                self._write(at, event)
            except Ds01Error as error:
                trouble = str(error)
        return trouble

    def _next(self, wait_s: float) -> tuple[Wall, Happening] | None:
        with self._lock:
            if not self._waiting or self._boot() - self._waiting[0][0] < wait_s:
                return None
            _, at, event = self._waiting.popleft()
            return at, event

    def _write(self, at: Wall, event: Happening) -> None:
        operation, name = OPERATIONS[event.action], event.name or ContainerName("")
        if self._log.tail_seen(operation, name, now=self._wall(), within_s=LATELY_S):
            return
        labels = event.labels
        user = labels.get("ds01.user") or labels.get("aime.mlc.USER") or labels.get("aime.mlc")
        slot = labels.get("ds01.gpu.slots") or labels.get("ds01.gpu.allocated")
        self._log.append(
            LogLine(
                at=at,
                operation=operation,
                user=user or "unknown",
                container=name,
                gpu=slot or "N/A",
                status="success",
                details=f"ds01d: seen in Docker's events ({event.action})",
            )
        )
