"""A lock that processes share: flock on a file that is never deleted.

Does not protect anything by itself, and cannot hold back a writer that does not ask for it.
Shell scripts take the same lock with flock(1).
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ds01d.adapters.durable_files import open_new, writing
from ds01d.errors import LockTimeout, WriteFailed

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.004  # longer, and whoever takes it again and again keeps us out


class Lock:
    """`with Lock(path, timeout_s):` waits for a bounded time, else raises `LockTimeout`.

    Not reentrant: taking it twice is a mistake in the program (RuntimeError).
    """

    def __init__(self, path: Path, timeout_s: float, *, mode: int = 0o664) -> None:
        """`mode` is that of a lock file which we make; who may read it may hold it for ever."""
        self._path = path
        self._mode = mode
        self._timeout_s = timeout_s
        self._descriptor: int | None = None
        self._given_up = False

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def __enter__(self) -> None:
        if self.held:
            raise RuntimeError(f"{self._path} is already locked by this very lock")
        deadline = time.monotonic() + self._timeout_s
        pause = _FIRST_PAUSE_S
        while (descriptor := self._attempt()) is None:
            left = 0.0 if self._given_up else deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(
                    f"{self._path} was not free within {self._timeout_s:g} s: {self._holder()}"
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._descriptor = descriptor
        self._sign(descriptor)

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
        self._given_up = True

    def _attempt(self) -> int | None:
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have deleted the file; a lock on what has no name locks nobody out.
            if os.path.samestat(os.fstat(descriptor), self._path.lstat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _open(self) -> int:
        """Open the lock file. Made by us, the group may take the lock too, whatever our umask."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with writing(self._path):
            try:
                descriptor = open_new(self._path, flags, self._mode)
            except FileExistsError:
                descriptor = os.open(self._path, flags)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
            raise WriteFailed(f"{self._path} cannot be locked: it is not an ordinary file")

    def _sign(self, descriptor: int) -> None:
        """Leave word who holds it, for whoever cannot find out from the kernel."""
        with suppress(OSError):
            note = f"{os.getpid()} {_printable(' '.join(sys.argv))[:200]}\n".encode()
            os.pwrite(descriptor, note, 0)
            os.ftruncate(descriptor, len(note))

    def _holder(self) -> str:
        with suppress(OSError):
            pid = _flock_holder(self._path.stat())
            if pid is not None:
                return f"held by pid {pid} ({_command(pid)})"
        with suppress(OSError):
            note = _printable(self._path.read_bytes()[:300].decode(errors="replace").strip())
            if note:
                return f"last taken by pid {note}"
        return "its holder is not known"


def _flock_holder(file: os.stat_result) -> int | None:
    """Look the file up in /proc/locks; file systems without a device of their own show another."""
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    elsewhere = None
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if len(words) < 6 or words[1] != "FLOCK" or not words[4].isdecimal():
            continue  # "->" in the place of the kind: somebody who waits
        where, _, inode = words[5].rpartition(":")
        if inode == str(file.st_ino):
            if where == device:
                return int(words[4])
            elsewhere = int(words[4])
    return elsewhere


def _command(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()[:200].replace(b"\0", b" ")
        if words.strip():
            return _printable(words.decode(errors="replace").strip())
        return _printable(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())
    return "its command is not to be seen"


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)
