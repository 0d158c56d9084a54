"""Detects bookings that other processes write into the state file. Decides nothing.

Decision 103: by a stat(2) each second, not by inotify, which a replaced folder or a network file
system would break. Callers of the allocator have no permission to wake the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ds01d.model.books import AllocatorState
from ds01d.model.primitives import Boot, ContainerName, SlotId

EVERY_S: Final = 1.0

Bookings = frozenset[tuple[ContainerName, SlotId]]
_Signature = tuple[int, int, int, int]


class BooksWatch:
    """Compares the state file with the published bookings; for the worker alone.

    `read` parses the file; an unreadable one is left to the sweeps.
    """

    def __init__(self, path: Path, read: Callable[[], object], clock: Callable[[], Boot]) -> None:
        self._path, self._read, self._clock = path, read, clock
        self._last_signature: _Signature | None = None
        self._next_check = clock()

    def wait_s(self) -> float:
        """Seconds until `find_changes` is due."""
        return max(0.0, self._next_check - self._clock())

    def find_changes(self, published: Callable[[], Bookings]) -> frozenset[ContainerName]:
        """Containers whose bookings differ from the published ones, if the file has changed."""
        now = self._clock()
        if now < self._next_check:
            return frozenset()
        self._next_check = Boot(now + EVERY_S)
        # A stat costs microseconds, parsing the file milliseconds: it is read only where it
        # differs.
        signature = _read_signature(self._path)
        if signature is None or signature == self._last_signature:
            return frozenset()
        # Also of a file that cannot be read: it is a matter for sweeps, not for each second.
        self._last_signature = signature
        state = self._read()
        if not isinstance(state, AllocatorState):
            return frozenset()
        # Decision 103: compared with what is published, so that our own writes wake nobody.
        return frozenset(name for name, _ in state.list_bookings() ^ published())


def _read_signature(path: Path) -> _Signature | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
