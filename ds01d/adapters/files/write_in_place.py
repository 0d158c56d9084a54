"""Files written in place: lines appended, and what cannot be replaced overwritten.

As in `atomic_write` a name is looked up in an open descriptor of its directory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ds01d.adapters.files.atomic_write import (
    change_owner,
    explain_failure,
    fsync_folder,
    opened_folder,
    suggest_fix,
    wrap_write_errors,
)
from ds01d.adapters.files.syncs import flush, sync, sync_later
from ds01d.errors import BooksChanged, WriteFailed
from ds01d.logins import find_login


def append_line(
    path: Path,
    line: str,
    *,
    mode: int = 0o664,
    durable: bool = False,
    explain: Callable[[WriteFailed], Exception] = lambda error: error,
) -> None:
    """Append one line with one write(2), so that lines of several writers never mix.

    A last line that somebody left without its end is ended first. A file is made, with this very
    mode and owner and group of its directory, as far as permitted; the directory is not. A file
    with a second name is refused: that may be anybody's (a hard link). `explain`:
    makes the error where it cannot be made durable.
    """
    with wrap_write_errors(path), opened_folder(path.parent) as folder:
        descriptor, made = _open_to_append(path, mode, folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise WriteFailed(f"{path} was not written: it is not a regular file")
            # Root would append to a file that a user may only have linked there.
            refuse_hard_link(path, status)
            # A killed writer leaves half a line; ours must not be taken for its end.
            open_end = status.st_size and os.pread(descriptor, 1, status.st_size - 1) != b"\n"
            data = (b"\n" if open_end else b"") + line.encode("utf-8", "backslashreplace") + b"\n"
            if os.write(descriptor, data) != len(data):
                raise WriteFailed(f"{path} took only a part of a line: {suggest_fix(errno.ENOSPC)}")
            if durable:
                sync_later(descriptor, lambda error: explain(explain_failure(path, error)))
        finally:
            os.close(descriptor)
        if durable and made:
            fsync_folder(folder, path)


def overwrite_file(
    path: Path, data: bytes, *, base: bytes, folder: int, limit: int, durable: bool = True
) -> None:
    """Write `data` over `base` in the file itself, where it cannot be replaced.

    For a file that is mounted by itself, and for a folder with the sticky bit in which it is
    somebody else's. Not atomic: a process killed in between leaves a mixture. What fails is put
    back. Raises `BooksChanged` if it is not `base`.
    """
    with wrap_write_errors(path):
        flush()
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or os.pread(descriptor, limit, 0) != base:
                raise BooksChanged(f"{path} has changed since it was read")
            try:
                _overwrite_descriptor(descriptor, data, len(base))
            except OSError:
                # What was there is better than a mixture; if this fails too, the file is rebuilt.
                _overwrite_descriptor(descriptor, base, len(base))
                raise
            if durable:
                sync(descriptor)
        finally:
            os.close(descriptor)


def _overwrite_descriptor(descriptor: int, data: bytes, before: int) -> None:
    """With spaces up to the old end first: cut short or read then, it is still the whole text."""
    # JSON with spaces behind it is whole at every moment of the write.
    text = memoryview(data.ljust(before))
    done = 0
    while done < len(text):
        done += os.pwrite(descriptor, text[done:], done)
    os.ftruncate(descriptor, len(data))


def refuse_hard_link(path: Path, status: os.stat_result) -> None:
    """Raise `WriteFailed` where a file that is about to be written in place has another name."""
    if status.st_nlink > 1:
        raise WriteFailed(
            f"{path} was not written: it is a hard link, of a file of {find_login(status.st_uid)};"
            f" remove that name"
        )


def _open_to_append(path: Path, mode: int, folder: int) -> tuple[int, bool]:
    """A descriptor, and whether the file was made."""
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open(path.name, flags, dir_fd=folder), False
    try:
        return open_new(path, flags, mode, folder), True
    except FileExistsError:
        return os.open(path.name, flags, dir_fd=folder), False


def open_new(path: Path, flags: int, mode: int, folder: int) -> int:
    """Make a file and open it, whatever the umask; owner and group are those of its directory.

    As far as that is permitted: so what root makes among the files of a service is the service's.
    """
    descriptor = os.open(path.name, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
    with suppress(OSError):
        status = os.fstat(folder)
        change_owner(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, mode)
    return descriptor
