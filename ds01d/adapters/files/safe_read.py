"""Regular files read safely, also those that another process writes in place.

Follows no symbolic link that an unprivileged user can have made (`ds01d.folders`), does not wait
for a FIFO, reads a bounded number of bytes, and writes nothing. A file that cannot be read is a
value (`NotRead`), not an exception.

Where `folder` is taken, it is an open descriptor of the path's directory: the name is looked up
in it, and the path serves for messages only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ds01d.errors import BooksChanged, WriteFailed
from ds01d.folders import UntrustedFolder, open_folder
from ds01d.logins import find_login
from ds01d.model.primitives import Digest, Word

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LEAST_BUFFER = 1 << 14
_LARGEST_BUFFER = 1 << 20


class ReadFailure(Word):
    """Why a file could not be read."""

    MISSING = "missing"  # its directory is there, the file is not
    NO_FOLDER = "no-folder"
    NOT_A_FILE = "not-a-file"  # a symbolic link, directory, FIFO, socket or device
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too-large"
    CHANGING = "changing"  # at each look
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRead:
    """A file that could not be read; `reason` names its path."""

    obstacle: ReadFailure
    reason: str

    def make_write_error(self) -> WriteFailed | BooksChanged:
        """Why what was read before cannot be replaced."""
        # Without descriptors or with a bad disk nobody changed it, and to decide again helps not.
        kind = WriteFailed if self.obstacle is ReadFailure.FAILED else BooksChanged
        return kind(self.reason)


class Signature(NamedTuple):
    """What changes when a file changes, as far as the clock of the file system is fine enough.

    A tuple, because each sweep makes and compares one for every metadata file.
    """

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_racy(self, within_s: float = 2.0) -> bool:
        """Touched so lately that a further change might leave the same signature.

        A stamp further ahead is from before the clock was set back: a change now has another one.
        """
        now_ns, within_ns = time.time_ns(), within_s * 1e9
        stamps = (self.modified_ns, self.changed_ns)
        return any(abs(now_ns - stamp) < within_ns for stamp in stamps)


def open_file(path: Path, *, folder: int | None = None, to_write: bool = False) -> int | NotRead:
    """Open an ordinary file for reading: the descriptor, or why not.

    `to_write`: for writing too where that is permitted, which on an overlay brings the file up
    from a lower layer, so that its inode is the one that later calls see.
    """
    if folder is None:
        try:
            descriptor = open_folder(path.parent)
        except OSError as error:
            return not_read(path, error)
        try:
            return open_file(path, folder=descriptor, to_write=to_write)
        finally:
            os.close(descriptor)
    try:
        return _accept_regular(path, _open_at(path.name, folder, to_write=to_write))
    except OSError as error:
        return _explain_failure(path, error, folder)


def _open_at(name: str, folder: int, *, to_write: bool) -> int:
    if to_write:
        with suppress(OSError):  # What cannot be written may still be replaced.
            return os.open(name, _READ | os.O_RDWR, dir_fd=folder)
    return os.open(name, _READ, dir_fd=folder)


def _accept_regular(path: Path, descriptor: int) -> int | NotRead:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return NotRead(obstacle=ReadFailure.NOT_A_FILE, reason=f"{path} is not a regular file")


def read_bytes(path: Path, limit: int, *, folder: int | None = None) -> bytes | NotRead:
    """A file's content, at most `limit` bytes of it; a larger file is not read at all."""
    descriptor = open_file(path, folder=folder)
    if isinstance(descriptor, NotRead):
        return descriptor
    try:
        # One byte more than allowed shows that there is more.
        data = _read_all(descriptor, limit + 1)
    except OSError as error:
        return _explain_failure(path, error, folder)
    finally:
        os.close(descriptor)
    return too_large(path, limit) if len(data) > limit else data


def read_unchanged(descriptor: int, limit: int) -> bytes | None:
    """What an open file holds, from its start; None if somebody wrote to it meanwhile.

    Two readings must agree, not the stats alone: the time stamps of files move in steps of some
    milliseconds, and a writer is done in less.
    """
    # Stats around two readings: a writer in place changes at least one of the four.
    before = Signature.of(os.fstat(descriptor))
    data = _read_all(descriptor, limit)
    if data != _read_all(descriptor, limit) or before != Signature.of(os.fstat(descriptor)):
        return None
    return data


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def too_large(path: Path, limit: int) -> NotRead:
    return NotRead(obstacle=ReadFailure.TOO_LARGE, reason=f"{path} has more than {limit} bytes")


def _read_all(descriptor: int, most: int) -> bytes:
    parts = []
    offset, size = 0, os.fstat(descriptor).st_size
    while offset < most:
        # A much larger buffer than what there is would be new memory from the kernel each time.
        count = min(max(size - offset, _LEAST_BUFFER), _LARGEST_BUFFER, most - offset)
        # By offset, since the descriptor may be read again from its start.
        part = os.pread(descriptor, count, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def not_read(path: Path, error: OSError) -> NotRead:
    """Why a file was not read, where it was its folder that could not be opened."""
    if isinstance(error, UntrustedFolder):
        reason = f"{path} is not read: {error.strerror}; {error.fix}"
        return NotRead(obstacle=ReadFailure.FAILED, reason=reason)
    return _explain_failure(path, error, None)


def _explain_failure(path: Path, error: OSError, folder: int | None) -> NotRead:
    obstacle, problem = ReadFailure.FAILED, str(error.strerror or error)
    match error.errno:
        # A file missing from a directory that is there means something; one whose file system is
        # not mounted does not.
        case errno.ENOENT if folder is not None or path.parent.is_dir():
            obstacle, problem = ReadFailure.MISSING, "does not exist"
        case errno.ENOENT | errno.ENOTDIR:
            obstacle, problem = ReadFailure.NO_FOLDER, "lies in a directory that does not exist"
        case errno.ELOOP:
            obstacle, problem = ReadFailure.NOT_A_FILE, "is a symbolic link"
        case errno.ENXIO | errno.ENODEV:
            obstacle, problem = ReadFailure.NOT_A_FILE, "is not a regular file"
        case errno.EACCES | errno.EPERM:
            obstacle, problem = ReadFailure.FORBIDDEN, "cannot be read: permission denied"
            problem += _describe_owner(path, folder)
        case errno.EAGAIN:  # Only a file's owner can have one, or root: fcntl(2), F_SETLEASE.
            problem = (
                f"cannot be opened: its owner holds a lease on it{_describe_owner(path, folder)}"
            )
        case _:
            pass
    return NotRead(obstacle=obstacle, reason=f"{path} {problem}")


def _describe_owner(path: Path, folder: int | None) -> str:
    """Whose file it is, with its mode, where that can be seen."""
    with suppress(OSError):
        name = path if folder is None else path.name
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return f" (it is {find_login(status.st_uid)}'s, mode {stat.S_IMODE(status.st_mode):04o})"
    return ""
