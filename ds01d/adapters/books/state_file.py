"""gpu-state.json as a file: read while others write it in place, replaced without losing bookings.

Reading changes nothing on disk. Writing happens under the books' lock, all or nothing, and only
onto the bytes that the decision was made from. `state_format` parses the bytes; `late_writers`
keeps what another process writes into a file that is being replaced.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ds01d.adapters.books.late_writers import ReplacedFiles
from ds01d.adapters.books.state_format import (
    NO_TEXTS,
    parse_slot,
    parse_state,
    render_state,
    slot_texts,
)
from ds01d.adapters.books.state_merge import LateChange
from ds01d.adapters.books.state_reader import LIMIT, StateReader, StateReading
from ds01d.adapters.files import atomic_write
from ds01d.adapters.files.backups import find_copy, keep_copy
from ds01d.adapters.files.file_lock import Lock
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, not_read, open_file, read_bytes
from ds01d.adapters.files.write_in_place import overwrite_file
from ds01d.errors import BooksChanged, Malformed, WriteFailed
from ds01d.folders import Folder, make_folder
from ds01d.model.books import MISSING, AllocatorState, Slot, Unreadable
from ds01d.model.primitives import Digest, SlotId, Source, Unknown

_LATE_WRITER_S = 0.01
_PAUSE_S = 0.0005
_MAX_ROUNDS = 5
_MOUNTED = frozenset({errno.EBUSY, errno.EXDEV})  # rename(2), link(2) on a mount of its own


class StateFile:
    """The allocator's state.

    `keep_dir` takes the last good copy and broken files, whose names begin with `copy`.
    `is_shared`: others may write the file, too.
    """

    def __init__(
        self,
        path: Path,
        keep_dir: Path,
        lock_timeout_s: float,
        *,
        copy: str = "gpu-state",
        is_shared: bool = True,
    ) -> None:
        self._path = path
        self._keep_dir = keep_dir
        self._last_good_path = keep_dir / f"{copy}.last-good.json"
        self._broken = f"{copy}.broken"
        self._parent = Folder(path.parent, service=keep_dir)
        lock = path.with_name(f"{path.name}.lock")
        self._lock = Lock(lock, lock_timeout_s, folder=Folder(path.parent, service=keep_dir))
        # One reader for reads and writes: it remembers which bytes have stayed broken.
        self._reader = StateReader(path)
        self._replaced = ReplacedFiles(path, is_shared=is_shared)
        self._good: bytes | None = None  # the last valid content
        self._saved: bytes | None = None  # the content of the last good copy

    def lock(self) -> AbstractContextManager[None]:
        """The books' lock, waited for a bounded time."""
        return self._lock

    def give_up(self) -> None:
        """Cancel every wait for the lock: the process ends. For any thread."""
        self._lock.give_up()

    def read(self) -> AllocatorState | Unreadable | Unknown:
        """Read and parse the file, and find bookings to merge. Writes nothing."""
        try:
            with self._parent.to_read() as folder:
                return self._read_in(folder)
        except OSError as error:
            return Unknown(source=Source.STATE, reason=not_read(self._path, error).reason)

    def _read_in(self, folder: int) -> AllocatorState | Unreadable | Unknown:
        reading = self._reader.read(folder)
        if reading is None:
            return Unknown(
                source=Source.STATE, reason=f"{self._path} keeps changing while it is read"
            )
        if isinstance(reading, NotRead):
            # Missing from a directory that is there is unreadable, not unknown: it can be rebuilt.
            if reading.obstacle is ReadFailure.MISSING:
                return self._make_unreadable(reading.reason, MISSING)
            return Unknown(source=Source.STATE, reason=reading.reason)
        if reading.state is None:
            return self._make_unreadable(reading.reason, reading.digest)
        self._good = reading.data
        return self._find_merge(folder, reading.state)

    def slot_texts(self, slots: Iterable[SlotId]) -> Mapping[SlotId, str]:
        """The JSON of slots in the last valid content."""
        return {} if self._good is None else slot_texts(self._good, slots)

    def parse_slot(self, name: SlotId, text: str) -> Slot:
        """Parse a text of `slot_texts`. Raises `Malformed`."""
        return parse_slot(name, text)

    def restore_broken(self, digest: Digest, *, onto: Digest) -> None:
        """Put back a broken file that was kept when it was replaced. Only under the lock.

        Raises `BooksChanged` if the file is not `onto` any more, `WriteFailed` if none was kept.
        """
        broken = find_copy(self._keep_dir, self._broken, digest)
        if broken is None:
            raise WriteFailed(f"no copy of the broken file is left in {self._keep_dir}")
        with atomic_write.wrap_write_errors(self._path), self._open_parent() as folder:
            self._replaced.forget_unreplaced(folder)
            reading = self._reader.read(folder)
            if not isinstance(reading, StateReading) or reading.digest != onto:
                raise BooksChanged(f"{self._path} has changed since it was read")
            self._replace_state(folder, reading.data, broken)

    def write(
        self, state: AllocatorState, *, onto: Digest, texts: Mapping[SlotId, str] = NO_TEXTS
    ) -> AllocatorState:
        """Replace the file by `state`; returns its content then. Only under the lock.

        A caller that waits for it need not wait for the copy: that is left to `save_last_good`.

        Slots in `texts` are written as given there, except for containers and users. Raises
        `BooksChanged` if the file is not `onto` any more, and `WriteFailed`. Bookings that another
        process wrote into the replaced file are merged at once.
        """
        if not self._lock.is_held:
            raise RuntimeError("the state is written only under its lock")
        with atomic_write.wrap_write_errors(self._path), self._open_parent() as folder:
            self._replaced.forget_unreplaced(folder)
            written = self._write_onto(folder, state, onto, texts)
            complete = False
            # The state is written: what fails from here on is repaired by the next pass.
            with suppress(WriteFailed, OSError):
                written, complete = self._merge_late_writes(folder, written)
            return written if complete else self._find_merge(folder, written)

    def save_last_good(self) -> None:
        """Keep the last good copy, and drop replaced files that have settled.

        After each change, and in passes that may write; not called, the copy that a rebuild falls
        back on grows old.
        """
        try:
            self._save_good()
        finally:
            if self._good is not None and self._path.parent.is_dir():
                with atomic_write.wrap_write_errors(self._path), self._open_parent() as folder:
                    self._replaced.drop_settled(folder, parse_state(self._good, str(self._path)))
                    atomic_write.remove_abandoned(folder)

    # --- reading ------------------------------------------------------------------------------

    def _make_unreadable(self, reason: str, digest: Digest) -> Unreadable:
        good = self._read_last_good()
        state = None if good is None else parse_state(good, str(self._last_good_path))
        return Unreadable(reason=reason, digest=digest, last_good=state)

    def _read_last_good(self) -> bytes | None:
        data = read_bytes(self._last_good_path, LIMIT)
        # Where no other process has saved one meanwhile, what this one wrote since is newer.
        if self._good is not None and (isinstance(data, NotRead) or data == self._saved):
            return self._good
        with suppress(Malformed):
            if not isinstance(data, NotRead):
                parse_state(data, str(self._last_good_path))
                return data
        return None

    def _find_merge(self, folder: int, state: AllocatorState) -> AllocatorState:
        with suppress(OSError):
            changes, _ = self._replaced.find_changes(folder)
            added = (change.added_to(state) for change in changes)
            return replace(state, merge=frozenset().union(*added))
        return state

    # --- writing ------------------------------------------------------------------------------

    @contextmanager
    def _open_parent(self) -> Iterator[int]:
        with self._parent.to_write() as folder:
            yield folder

    def _write_onto(
        self, folder: int, state: AllocatorState, onto: Digest, texts: Mapping[SlotId, str]
    ) -> AllocatorState:
        """Replace the file, which must be `onto`; gives what was written."""
        reading = self._reader.read(folder)
        if isinstance(reading, NotRead) and reading.obstacle is ReadFailure.MISSING:
            # Somebody removed it after the decision, which was about its content.
            if onto != MISSING:
                raise BooksChanged(f"{self._path} does not exist any more")
            data = self._render_onto(self._read_last_good(), state)
            atomic_write.create_file(self._path, data, folder=folder)
        elif isinstance(reading, StateReading) and reading.digest == onto:
            base = reading.data
            if reading.state is None:
                keep_copy(self._keep_dir, self._broken, base)
            else:
                # Before the write: a link must not bring back what is released here on purpose.
                self._replaced.release(folder, reading.state, state)
            data = self._render_onto(
                base if reading.state else self._read_last_good(), state, texts
            )
            if reading.is_oversized:  # Nobody is writing a state there.
                atomic_write.replace_file(self._path, data, folder=folder)
            else:
                self._replace_state(folder, base, data)
        elif isinstance(reading, NotRead):
            raise reading.make_write_error()
        else:
            raise BooksChanged(f"{self._path} has changed since it was read")
        self._good = data
        return parse_state(data, str(self._path))

    def _render_onto(
        self, base: bytes | None, state: AllocatorState, texts: Mapping[SlotId, str] = NO_TEXTS
    ) -> bytes:
        """As `render_state`; raises `WriteFailed` where nobody could read it again."""
        data = render_state(base, state, texts)
        try:
            parse_state(data, str(self._path))
        except Malformed as error:
            raise WriteFailed(f"{self._path} was not written: {error}") from error
        return data

    def _replace_state(self, folder: int, base: bytes, data: bytes) -> None:
        """Put `data` in the place of `base`, whose file stays linked; nothing to do if equal."""
        # A second pass changes nothing, not even a time stamp that wakes other readers.
        if data == base:
            return
        # decision 156: replaced by rename(2), with the old inode linked for late writers.
        # For writing, as far as that goes: on an overlay the file is brought up by that, and has
        # from then on the inode that the link will have.
        descriptor = open_file(self._path, folder=folder, to_write=True)
        if isinstance(descriptor, NotRead):
            raise descriptor.make_write_error()
        try:
            if not _may_be_replaced(folder, descriptor):
                self._overwrite_state(folder, base, data)
                return
            atomic_write.replace_file(
                self._path,
                data,
                before=lambda: self._replaced.keep_replaced(folder, descriptor, base),
                folder=folder,
            )
        except WriteFailed as failed:
            if getattr(failed.__cause__, "errno", None) not in _MOUNTED:
                raise
            self._overwrite_state(folder, base, data)
        finally:
            os.close(descriptor)

    def _overwrite_state(self, folder: int, base: bytes, data: bytes) -> None:
        """Write the file in place."""
        # decision 91: not atomic, so `data` is saved first, to rebuild from after a crash.
        self._good = data
        with suppress(WriteFailed):  # not everybody may
            self._save_good()
        overwrite_file(self._path, data, base=base, folder=folder, limit=LIMIT)

    def _merge_late_writes(
        self, folder: int, written: AllocatorState
    ) -> tuple[AllocatorState, bool]:
        """Merge what others wrote into replaced files, until there is nothing new.

        Gives what is in the file then, and whether nothing is left to merge. What is still being
        written is left to the next pass.
        """
        # Each round writes, and a late writer may follow each; the next pass goes on.
        for _ in range(_MAX_ROUNDS):
            changes = self._changes_of_late_writers(folder)
            if not changes:
                return written, True
            reading = self._reader.read(folder)
            if not isinstance(reading, StateReading) or reading.state is None:
                return written, False
            merged = written = reading.state
            for change in changes:
                merged = change.merged_into(merged)
            if merged == written:
                self._good = reading.data
                return written, True
            with suppress(BooksChanged):
                self._replace_state(folder, reading.data, render_state(reading.data, merged))
        return written, False

    def _changes_of_late_writers(self, folder: int) -> list[LateChange]:
        deadline = time.monotonic() + _LATE_WRITER_S
        while True:
            changes, torn = self._replaced.find_changes(folder)
            if not torn or time.monotonic() > deadline:
                return changes
            time.sleep(_PAUSE_S)

    def _save_good(self) -> None:
        """Not synced: it serves when others break the state, which itself outlasts a crash."""
        if self._good is None or self._good == self._saved:
            return
        with atomic_write.wrap_write_errors(self._keep_dir):
            make_folder(self._keep_dir, 0o755)
        # The daemon and commands share the copy, and most passes change nothing.
        if read_bytes(self._last_good_path, LIMIT) != self._good:
            atomic_write.replace_file(self._last_good_path, self._good, mode=0o600, durable=False)
        self._saved = self._good


def _may_be_replaced(folder: int, file: int) -> bool:
    """Whether the sticky bit leaves that to us: for the owner of the file or of the folder."""
    place = os.fstat(folder)
    owners = {place.st_uid, os.fstat(file).st_uid}
    return not place.st_mode & stat.S_ISVTX or os.geteuid() in {0, *owners}
