"""fsync(2): what is written outlasts a power failure.

For several at the same time a disk takes hardly longer than for one, since a journal is committed
once. So inside of `join_syncs` a sync is put off (`sync_later`) until something relies on it, and
is then made together with the next one (`sync`), before that returns. Every name that is exchanged
is that of a file which was synced right before, so nothing overtakes what was put off.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

Explain = Callable[[OSError], Exception]
"""Makes the error that is raised where a sync fails."""


@dataclass(slots=True)
class _Sync:
    """One of a file; `descriptor` is its own."""

    descriptor: int
    explain: Explain
    failure: OSError | None = None

    def run(self) -> None:
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            self.failure = error


class _Pending(threading.local):
    """What this thread has put off; None outside of `join_syncs`."""

    syncs: list[_Sync] | None = None


_pending = _Pending()


@contextmanager
def join_syncs() -> Iterator[None]:
    """Syncs may be put off inside; at the end all are made."""
    if _pending.syncs is not None:
        raise RuntimeError("syncs are joined already")
    _pending.syncs = []
    try:
        yield
        flush()
    finally:
        with suppress(Exception):  # the error that ended the block has more
            flush()
        _pending.syncs = None


def sync_later(descriptor: int, explain: Explain) -> None:
    """Sync a file, inside of `join_syncs` together with the next one."""
    file_sync = _Sync(os.dup(descriptor), explain)
    if _pending.syncs is None:
        _make_all([file_sync])
    else:
        _pending.syncs.append(file_sync)


def sync(descriptor: int) -> None:
    """Sync a file, and all that was put off. Raises OSError, and as they are explained."""
    _make_all([*_take_pending(), _Sync(os.dup(descriptor), lambda error: error)])


def flush() -> None:
    """Sync all that was put off, where what relies on it syncs nothing by itself."""
    _make_all(_take_pending())


def _take_pending() -> Sequence[_Sync]:
    syncs = _pending.syncs
    if not syncs:
        return ()
    _pending.syncs = []
    return syncs


def _make_all(syncs: Sequence[_Sync]) -> None:
    """Make them at the same time, and raise the first failure."""
    threads = []
    for file_sync in syncs[:-1]:
        thread = threading.Thread(target=file_sync.run, name="sync")
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:  # no more threads
            file_sync.run()
    for file_sync in syncs[-1:]:
        file_sync.run()
    for thread in threads:
        thread.join()
    for file_sync in syncs:
        os.close(file_sync.descriptor)
    for file_sync in syncs:
        if file_sync.failure is not None:
            raise file_sync.explain(file_sync.failure)
