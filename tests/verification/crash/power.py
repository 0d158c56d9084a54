"""What a power failure would lose: what was not synced before something else relied on it.

Judged by the calls alone. A file's bytes are safe once it was synced after its last write; a name
once its directory was. The lock files and the copies that only help are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from tests.verification.crash.disk import Disk
from tests.verification.crash.stepping import Call

_CHANGES = ("write", "pwrite", "pwrite64", "writev", "ftruncate", "ftruncate64", "truncate")
_SYNCS = ("fsync", "fdatasync")


def unsynced(calls: Sequence[Call], disk: Disk) -> Iterator[str]:
    """What is wrong, in words."""
    watch = _Watch(disk)
    for call in calls:
        yield from watch.look(call)
    yield from watch.end()


class _Watch:
    """Follows the calls. `_dirty`: files whose bytes are not safe; `_loose`: folders, names."""

    def __init__(self, disk: Disk) -> None:
        self._own, self._metadata = str(disk.own), str(disk.metadata)
        self._state, self._books = str(disk.state), str(disk.state.parent)
        self._history = str(disk.own / "history.jsonl")
        self._durable = {self._state, self._history, str(disk.own / "checkpoint.json")}
        self._dirty: set[str] = set()
        self._loose: set[str] = set()

    def look(self, call: Call) -> Iterator[str]:
        if call.name in _CHANGES:
            if call.path == self._history and self._loose & {self._books, self._metadata}:
                yield "an entry of the history follows a change that is not safe"
            self._dirty.add(call.path)
        elif call.name in _SYNCS:
            self._dirty.discard(call.path)
            self._loose.discard(call.path)
        elif call.name in ("rename", "link") and self._lasting(call.other):
            if call.path in self._dirty:
                yield f"{call.other} takes the place of bytes that are not synced"
            yield from self._order(call.other)
            self._loose.add(str(PurePath(call.other).parent))
        elif call.name == "unlink" and self._lasting(call.path):
            yield from self._order(call.path)
            self._loose.add(self._metadata)
        elif call.name == "open" and call.path == self._history:
            self._loose.add(self._own)

    def _lasting(self, path: str) -> bool:
        own_name = PurePath(path).name
        record = str(PurePath(path).parent) == self._metadata and not own_name.startswith(".")
        return path in self._durable or record

    def _order(self, path: str) -> Iterator[str]:
        """History, then the state, then the metadata."""
        if path != self._state and str(PurePath(path).parent) != self._metadata:
            return
        if self._history in self._dirty or self._own in self._loose:
            yield f"{path} is changed before its entry in the history is safe"
        if path != self._state and self._books in self._loose:
            yield f"{path} is changed before the state is safe"

    def end(self) -> Iterator[str]:
        # That an entry is closed the books show as well (decision 256); that no change comes before
        # its entry is safe, `_order` sees.
        for path in sorted((self._dirty & self._durable) - {self._history}):
            yield f"{path} is never synced"
        for folder in sorted(self._loose):
            yield f"the names in {folder} are never synced"
