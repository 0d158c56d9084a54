"""events.jsonl: the lines of the operations log again, in the format that a lab's reports read.

One compact JSON object a line, under 4 KB, so that one write of several writers never mixes with
another's. The file is opened for each write: a program that rotates it, by rename or by copy and
truncate, loses nothing. Nothing is decided by it: decision 236.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ds01d.adapters.files.write_in_place import append_line
from ds01d.decide.event_lines import format_utc
from ds01d.errors import Ds01Error
from ds01d.model.books import LogLine

SCHEMA_VERSION: Final = "1"
MAX_LINE_BYTES: Final = 4095  # a write of 4096 may be split (PIPE_BUF)
_MAX_WAITING: Final = 10_000
_MAX_VALUE: Final = 256
_SOURCE: Final = "ds01d"
# (operation, whether it was done) → type; what was not done and is not listed is no event.
_TYPES: Final[Mapping[tuple[str, bool], str]] = {
    ("create_start", True): "container.create_start",
    ("create_failed", True): "container.create_failed",
    ("create_failed", False): "container.create_failed",
    ("create_success", True): "container.create_success",
    ("start", True): "container.start",
    ("stop", True): "container.stop",
    ("remove", True): "container.remove",
    ("allocate", True): "gpu.allocated",
    ("allocate", False): "gpu.rejected",
    ("book", True): "gpu.allocated",
    ("release", True): "gpu.released",
    ("move", True): "gpu.moved",
}
_NOT_DONE: Final = frozenset({"failed", "refused", "error"})
_NO_USER: Final = frozenset({"", "unknown", "system"})
_NO_VALUE: Final = frozenset({"", "N/A"})


class EventsFile:
    """The file. A line that cannot be written waits, up to a bound; then the oldest is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._problem = ""
        self._lost = 0

    def send(self, lines: Iterable[tuple[LogLine, str]]) -> None:
        """Append what is an event; see `LineCopy`."""
        for line, _ in lines:
            event = format_event(line)
            if event is None:
                continue
            if len(self._waiting) >= _MAX_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(event)
        self.flush()

    def flush(self) -> bool:
        """Write what waits; whether all of it is written."""
        try:
            while self._waiting:
                batch = self._next_batch()
                append_line(self._path, b"\n".join(batch).decode())
                # Only now: what could not be written is written before all that comes later.
                for _ in batch:
                    self._waiting.popleft()
        except Ds01Error as error:
            self._problem = str(error)
        return not self._waiting

    def take_problem(self) -> str:
        """What went wrong since the last call; "" for nothing."""
        lost = f"{self._lost} events missing in {self._path}" if self._lost else ""
        problem = "; ".join(filter(None, (self._problem, lost)))
        self._problem, self._lost = "", 0
        return problem

    def _next_batch(self) -> list[bytes]:
        """As many lines as fit into one write."""
        batch: list[bytes] = []
        size = 0
        for line in self._waiting:
            size += len(line) + 1
            if batch and size > MAX_LINE_BYTES:
                break
            batch.append(line)
        return batch


def format_event(line: LogLine) -> bytes | None:
    """A line of the operations log as an event; None for one that is none."""
    kind = _TYPES.get((line.operation, line.status not in _NOT_DONE))
    if kind is None:
        return None
    event: dict[str, object] = {
        "timestamp": format_utc(line.at),
        "event_type": kind,
        "schema_version": SCHEMA_VERSION,
    }
    if line.user not in _NO_USER:
        event["user"] = line.user[:_MAX_VALUE]
    event |= {"source": _SOURCE, "details": dict(_list_details(line))}
    data = _encode(event)
    if len(data) < MAX_LINE_BYTES:
        return data
    # As the lab's own writer does it: the rest of the event is worth more than half of its details.
    return _encode({**event, "details": {"truncated": True, "original_size": len(data)}})


def _list_details(line: LogLine) -> Iterator[tuple[str, str]]:
    values = {"container": line.container, "gpu": line.gpu, "reason": line.details}
    yield from ((key, value) for key, value in values.items() if value not in _NO_VALUE)
    if line.actor is not None:
        yield "by", str(line.actor)


def _encode(event: Mapping[str, object]) -> bytes:
    # ASCII alone, so that no reader's encoding and no separator of lines in a text matters.
    return json.dumps(event, separators=(",", ":")).encode()
