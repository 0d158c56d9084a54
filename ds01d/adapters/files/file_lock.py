"""A lock that processes share: flock on a file that is never deleted.

An advisory lock: it does not stop a writer that does not take it. Shell scripts take the same lock
with flock(1). Anything in its place that ds01d cannot lock (a directory, a FIFO, a file that it may
not open) is moved out of the way (decision 93).
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ds01d.adapters.files.atomic_write import wrap_write_errors
from ds01d.adapters.files.lock_holders import holder_of
from ds01d.adapters.files.write_in_place import open_new
from ds01d.errors import LockTimeout, WriteFailed
from ds01d.folders import Folder
from ds01d.logins import find_login
from ds01d.text import make_printable

_FIRST_PAUSE_S = 0.001
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A link, a directory, a socket, a file of somebody else's, or one on which its owner has a lease
# (fcntl(2), F_SETLEASE: so nobody else has it open). Others (EIO, EMFILE) may go by.
_NOT_A_LOCK = frozenset(
    {errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EAGAIN}
)
_MAX_PAUSE_S = 0.004  # longer, and a process that keeps taking it would starve this one
_TURN_S = 1.0  # clearing away takes microseconds: who locks the folder for longer is none of us


class _NotALock(Exception):
    """What lies in the lock's place can be nobody's lock among us."""


class Lock:
    """`with Lock(path, timeout_s):` waits for a bounded time, else raises `LockTimeout`.

    Not reentrant: taking it twice is a mistake in the program (RuntimeError).
    """

    def __init__(
        self, path: Path, timeout_s: float, *, mode: int = 0o660, folder: Folder | None = None
    ) -> None:
        """`mode` is that of a lock file which we make; who may read it may hold it for ever.

        `folder`: the lock's own one, where more has to be known of it than its path.
        """
        self._path = path
        self._folder = folder or Folder(path.parent)
        self._mode = mode
        self._timeout_s = timeout_s
        self._descriptor: int | None = None
        self._is_cancelled = False

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def __enter__(self) -> None:
        if self.is_held:
            raise RuntimeError(f"{self._path} is already locked by this very lock")
        began = time.monotonic()
        deadline = began + self._timeout_s
        # Decision 130: who only holds the folder's lock delays us by a second, no more.
        turn_ends = began + min(_TURN_S, self._timeout_s / 2)
        pause = _FIRST_PAUSE_S
        while (descriptor := self._try_once(in_turn=time.monotonic() < turn_ends)) is None:
            left = 0.0 if self._is_cancelled else deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(
                    f"{self._path} was not free within {self._timeout_s:g} s:"
                    f" {self._describe_holder()}"
                )
            time.sleep(min(pause, left))
            # Short at first, since writers are quick; flock(2) itself has no deadline.
            pause = min(2 * pause, _MAX_PAUSE_S)
        self._descriptor = descriptor
        self._write_holder(descriptor)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def give_up(self) -> None:
        """End the wait for it, from any thread, now and from now on. A free one is still taken."""
        self._is_cancelled = True

    def _try_once(self, *, in_turn: bool) -> int | None:
        with wrap_write_errors(self._path), self._folder.to_read() as folder:
            try:
                return self._try_lock(folder)
            except (BlockingIOError, FileNotFoundError):
                return None
            except _NotALock:
                with suppress(BlockingIOError):  # Another of us is at it.
                    self._clear_away(folder, in_turn=in_turn)
                return None

    def _try_lock(self, folder: int) -> int | None:
        descriptor = self._open_lock_file(folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have deleted the file; a lock on what has no name keeps nobody out.
            status = os.stat(self._path.name, dir_fd=folder, follow_symlinks=False)
            if os.path.samestat(os.fstat(descriptor), status):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _open_lock_file(self, folder: int) -> int:
        """Open the lock file, or make it; raises `_NotALock` for what cannot be ds01d's lock."""
        # A new one is made so that the group may take the lock too, whatever the umask.
        with suppress(FileExistsError):
            return open_new(self._path, os.O_RDWR | _FLAGS, self._mode, folder)
        try:
            descriptor = self._open_existing(folder)
        except OSError as error:
            if error.errno in _NOT_A_LOCK:
                raise _NotALock from error
            raise
        status = os.fstat(descriptor)
        # A second name may be in another folder, with other rights to lock it.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(descriptor)
            raise _NotALock
        # Who may open the file may hold the lock for ever.
        if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXO:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~stat.S_IRWXO)
        return descriptor

    def _open_existing(self, folder: int) -> int:
        with suppress(PermissionError):  # flock(2) needs no right to write
            return os.open(self._path.name, os.O_RDWR | _FLAGS, dir_fd=folder)
        return os.open(self._path.name, os.O_RDONLY | _FLAGS, dir_fd=folder)

    def _clear_away(self, folder: int, *, in_turn: bool) -> None:
        """Move what cannot be locked out of the way; one of us at a time, and looked at again.

        `in_turn`: while another has the folder locked, do nothing. Anybody who may read a folder
        may lock it, for ever (flock(2)); so after a while it is done out of turn.
        """
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if in_turn:
                raise
        with suppress(_NotALock, FileNotFoundError):
            os.close(self._open_lock_file(folder))
            return
        aside = f".{self._path.name}.unusable-{secrets.token_hex(4)}"
        try:
            before = os.stat(self._path.name, dir_fd=folder, follow_symlinks=False)
            os.rename(self._path.name, aside, src_dir_fd=folder, dst_dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.EACCES:  # The folder is not for us to change, nor the lock.
                raise
            raise WriteFailed(self._describe_unusable(folder)) from error
        if not os.path.samestat(before, os.stat(aside, dir_fd=folder, follow_symlinks=False)):
            with suppress(OSError):  # A lock that another of us has just made: back with it.
                os.link(aside, self._path.name, src_dir_fd=folder, dst_dir_fd=folder)
        for remove in (os.unlink, os.rmdir):
            with suppress(OSError):
                remove(aside, dir_fd=folder)

    def _describe_unusable(self, folder: int) -> str:
        problem = f"{self._path} cannot be locked"
        with suppress(OSError):
            status = os.stat(self._path.name, dir_fd=folder, follow_symlinks=False)
            problem += f": {stat.filemode(status.st_mode)}, of {find_login(status.st_uid)}"
        return f"{problem}; remove it: rm -r {self._path}"

    def _write_holder(self, descriptor: int) -> None:
        """Write the holder into the file, for hosts where the kernel does not list it."""
        with suppress(OSError):
            note = f"{os.getpid()} {make_printable(' '.join(sys.argv))[:200]}\n".encode()
            os.pwrite(descriptor, note, 0)
            os.ftruncate(descriptor, len(note))

    def _describe_holder(self) -> str:
        with suppress(OSError), self._folder.to_read() as folder:
            descriptor = os.open(self._path.name, os.O_RDONLY | _FLAGS, dir_fd=folder)
            try:
                holder = holder_of(os.fstat(descriptor))
                if holder:
                    return f"held by {holder}"
                note = make_printable(os.pread(descriptor, 300, 0).decode(errors="replace").strip())
                if note:
                    return f"last taken by pid {note}"
            finally:
                os.close(descriptor)
        return "its holder is unknown"
