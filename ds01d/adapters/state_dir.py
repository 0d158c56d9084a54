"""ds01d's own directory: checkpoint, history, and the lock that the daemon and ds01ctl share.

Stores bytes and knows no format. The history grows by whole lines, is durable before anything is
done, and is bounded: full files are renamed to `history.jsonl.1` … and the oldest goes.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from ds01d.adapters.files import atomic_write, syncs
from ds01d.adapters.files.backups import keep_copy
from ds01d.adapters.files.file_lock import Lock
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, Signature, open_file, read_bytes
from ds01d.adapters.files.write_in_place import append_line
from ds01d.errors import CheckpointBroken, HistoryFailed, Malformed, WriteFailed
from ds01d.folders import make_folder, open_folder, opened_folder
from ds01d.model.history import HistoryPlace

_CHECKPOINT_LIMIT = 256 * 1024 * 1024
_HISTORY_SIZE = 8 * 1024 * 1024
_HISTORY_FILES = 10
_NEWEST_FILES = 4  # what one pass enters fits into them
_PRIVATE = 0o640
_PUBLIC_FOLDER = 0o755  # the status in it is for everybody
_FILES = (
    "checkpoint.json",
    "history.jsonl",
    "containers.json",
    "creations.json",
    "notice-requests.json",
    "status.json",
    "accounting.sqlite",
)


class StateDirectory:
    """`path` is made if it is missing. `lock_timeout_s` bounds the wait for another pass."""

    def __init__(self, path: Path, lock_timeout_s: float) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.json"
        self._former_checkpoint = path / "memory.json"  # its name before 0.1.0: read, then replaced
        self.history = path / "history.jsonl"
        self._lock = Lock(path / "lock", lock_timeout_s, mode=0o660)
        self._cached: tuple[Signature, bytes] | None = None
        self._read_until: tuple[int, int] | None = None
        self._made_identity: tuple[int, int] | None = None
        self._has_unsynced_lines = False

    def make(self) -> None:
        """Make the directory if it is missing, with its mode. Raises `WriteFailed`."""
        with atomic_write.wrap_write_errors(self.path):
            try:
                os.close(open_folder(self.path))  # its path is to be trusted, too
            except FileNotFoundError:
                make_folder(self.path, _PUBLIC_FOLDER)
                with opened_folder(self.path) as folder:
                    os.fchmod(folder, _PUBLIC_FOLDER)  # whatever the umask
            # Of the first directory: one made later by somebody else is not ours (decision 99).
            if self._made_identity is None:
                self._made_identity = self._read_identity()

    def lock(self) -> AbstractContextManager[None]:
        """One pass at a time. What is missing or in the way of our files is put right before."""
        self.make()
        self._clear_obstacles()
        return self._lock

    @property
    def replaced(self) -> bool:
        """The directory is not the one that `make` saw first: removed, or made by somebody else."""
        return self._made_identity is not None and self._made_identity != self._read_identity()

    def _read_identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino)

    def _clear_obstacles(self) -> None:
        """Rename whatever is not a regular file out of the place of one, if possible."""
        with suppress(OSError), opened_folder(self.path) as folder:
            for name in _FILES:
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode):
                        # Renamed, not removed: it may be a directory that somebody mounted or
                        # filled.
                        aside = f"{name}.not-a-file-{time.time_ns()}"
                        os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)

    def give_up(self) -> None:
        """Wait for the lock no more: we stop. For any thread."""
        self._lock.give_up()

    # --- checkpoint

    def load_checkpoint(self) -> bytes | None:
        """The saved bytes, None if there are none. Raises `CheckpointBroken` if unreadable."""
        # The daemon's own checkpoint is megabytes, and nearly always what it wrote itself.
        if self._cached is not None and _read_signature(self.checkpoint) == self._cached[0]:
            return self._cached[1]
        data = read_bytes(self._newest_checkpoint(), _CHECKPOINT_LIMIT)
        if isinstance(data, NotRead):
            if data.obstacle in {ReadFailure.MISSING, ReadFailure.NO_FOLDER}:
                return None
            raise CheckpointBroken(data.reason)
        return data

    def save_checkpoint(self, data: bytes) -> None:
        """Replace the checkpoint, durably: freezes and the trusted engine are in it."""
        atomic_write.replace_file(self.checkpoint, data, mode=_PRIVATE)
        if self._former_checkpoint.exists():
            self._remove_file(self._former_checkpoint)
        signature = _read_signature(self.checkpoint)
        self._cached = None if signature is None else (signature, data)

    def set_checkpoint_aside(self) -> None:
        """Keep what cannot be parsed, and remove an older one too. Raises `WriteFailed`."""
        data = read_bytes(self._newest_checkpoint(), _CHECKPOINT_LIMIT)
        if isinstance(data, bytes):
            keep_copy(self.path, "checkpoint.broken", data)
        self._remove_file(self.checkpoint)
        self._remove_file(self._former_checkpoint)

    def _newest_checkpoint(self) -> Path:
        """The former file counts if an older ds01d, installed again, wrote it after the other."""

        def modified_ns(path: Path) -> int:
            return signature.modified_ns if (signature := _read_signature(path)) else -1

        return max((self.checkpoint, self._former_checkpoint), key=modified_ns)

    def _remove_file(self, path: Path) -> None:
        wrapped = atomic_write.wrap_write_errors(path)
        with wrapped, opened_folder(self.path) as folder, suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of writers that were killed, in here and in what is kept."""
        for folder in (self.path, self.path / "metadata-broken"):
            with suppress(OSError), opened_folder(folder) as descriptor:
                atomic_write.remove_abandoned(descriptor)

    # --- history

    def append_history(self, lines: Sequence[bytes], *, durable: bool = True) -> None:
        """Append lines durably, in as few writes as files have room. Raises `HistoryFailed`.

        Inside of `join_syncs` they are durable before anything relies on them, which raises then.
        With `durable` False they are durable with the next ones, or after `sync_history`.
        """
        # Others may have appended since; our own lines are no news to us.
        is_read = self._read_until is not None and self._read_until == self._read_extent()
        self._read_until = None
        try:
            for batch in self._split_batches(lines):
                # The name of a new file as well, which no later line would make durable.
                is_synced = durable or not self._read_size()
                append_line(
                    self.history,
                    b"\n".join(batch).decode(),
                    mode=_PRIVATE,
                    durable=is_synced,
                    explain=_history_failed,
                )
                self._has_unsynced_lines = not is_synced
        except (OSError, WriteFailed) as error:
            raise _history_failed(error) from error
        if is_read:
            self._read_until = self._read_extent()

    def sync_history(self) -> None:
        """Make every line that this process has appended durable. Raises `HistoryFailed`."""
        if not self._has_unsynced_lines:
            return
        descriptor = open_file(self.history)
        if isinstance(descriptor, NotRead):
            raise HistoryFailed(descriptor.reason)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _history_failed(error) from error
        finally:
            os.close(descriptor)
        self._has_unsynced_lines = False

    def join_syncs(self) -> AbstractContextManager[None]:
        """Inside, entries are synced together with the change that relies on them."""
        return syncs.join_syncs()

    def _split_batches(self, lines: Sequence[bytes]) -> Iterator[list[bytes]]:
        """The lines, cut where the file is full, which is rotated then. A line is never cut."""
        batch: list[bytes] = []
        size = self._read_size()
        for line in lines:
            # Before the line, so that no file grows past its bound by one large entry.
            if size and size + len(line) >= _HISTORY_SIZE:
                if batch:
                    yield batch
                self.sync_history()
                self._rotate_files()
                batch, size = [], 0
            batch.append(line)
            size += len(line) + 1
        if batch:
            yield batch

    def read_new_history(self) -> Iterator[bytes]:
        """The lines of the newest files, if others added some since `mark_history_read`.

        Of those back to the one that was the newest then, else of so many that an entry which a
        process left open is among them: the next pass closes it first.
        """
        if self._read_extent() != self._read_until:
            for number in range(self._find_oldest_unread(), -1, -1):
                yield from self._read_lines(number)

    def _find_oldest_unread(self) -> int:
        inode = self._read_until[0] if self._read_until is not None else 0
        for number in range(_HISTORY_FILES + 1):
            with suppress(OSError):
                if inode and self._numbered_path(number).lstat().st_ino == inode:
                    return max(number, 1)
        return _NEWEST_FILES - 1

    def mark_history_read(self) -> None:
        """Nothing in the history is news any more; nor is what is appended from here."""
        self._read_until = self._read_extent()

    def _read_extent(self) -> tuple[int, int]:
        """Which file the history is, and how long."""
        try:
            status = self.history.lstat()
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_size)

    def read_history(self) -> Iterator[bytes]:
        """Every line there is, oldest first; files that cannot be read are left out."""
        for number in range(_HISTORY_FILES, -1, -1):
            yield from self._read_lines(number)

    def read_history_from(self, place: HistoryPlace | None) -> Iterator[tuple[HistoryPlace, bytes]]:
        """The whole lines from a place on, oldest first, each with the place after it.

        From None, or from a place that is not there any more, every line there is.
        """
        inode, offset = place or (0, 0)
        # Nearly always there is nothing new, and one look shows it.
        if place == self._read_extent():
            return
        for number in range(self._find_file(inode), -1, -1):
            descriptor = open_file(self._numbered_path(number))
            if isinstance(descriptor, NotRead):
                continue
            with os.fdopen(descriptor, "rb") as file:
                opened = os.fstat(descriptor).st_ino
                end = file.seek(offset if opened == inode else 0)
                for line in file:
                    end += len(line)
                    # Half a line is not there yet, or never will be.
                    if line.endswith(b"\n"):
                        yield (opened, end), line

    def _find_file(self, inode: int) -> int:
        """The number of the file with this inode; of the oldest possible one, if there is none."""
        for number in range(_HISTORY_FILES):
            with suppress(OSError):
                if self._numbered_path(number).lstat().st_ino == inode:
                    return number
        return _HISTORY_FILES

    def _read_lines(self, number: int) -> Iterator[bytes]:
        descriptor = open_file(self._numbered_path(number))
        if not isinstance(descriptor, NotRead):
            with os.fdopen(descriptor, "rb") as file:
                yield from file

    def _read_size(self) -> int:
        try:
            return self.history.lstat().st_size
        except FileNotFoundError:
            return 0

    def _rotate_files(self) -> None:
        with opened_folder(self.path) as folder:
            for number in range(_HISTORY_FILES - 1, -1, -1):
                name, next_name = (self._numbered_path(n).name for n in (number, number + 1))
                with suppress(FileNotFoundError):
                    os.rename(name, next_name, src_dir_fd=folder, dst_dir_fd=folder)

    def _numbered_path(self, number: int) -> Path:
        suffix = f".{number}" if number else ""
        return self.history.with_name(f"{self.history.name}{suffix}")

    # --- other files

    def load(self, name: str) -> bytes:
        """Another file of ours, b"" if it is not to be had."""
        data = read_bytes(self.path / name, _CHECKPOINT_LIMIT)
        return data if isinstance(data, bytes) else b""

    def load_kept(self, name: str) -> bytes | None:
        """Another file of ours, None if there is none. Raises `Malformed` if it cannot be read."""
        data = read_bytes(self.path / name, _CHECKPOINT_LIMIT)
        if isinstance(data, bytes):
            return data
        # Who keeps who it is there must not take a file that it may not read for none.
        if data.obstacle is ReadFailure.MISSING:
            return None
        raise Malformed(data.reason)

    def save(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Replace another file of ours. Raises `WriteFailed`."""
        atomic_write.replace_file(self.path / name, data, mode=_PRIVATE, durable=durable)


def _history_failed(error: Exception) -> HistoryFailed:
    return HistoryFailed(f"the history cannot be written, so nothing is done: {error}")


def _read_signature(path: Path) -> Signature | None:
    try:
        return Signature.of(path.lstat())
    except OSError:
        return None
