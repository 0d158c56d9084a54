"""Makes ds01d the only writer of the books: owner, modes and access lists of folders and files.

For `books.writers = "service"`. A file that somebody else owns, or can write to, is replaced by a
copy: also a descriptor that they have open then leads to a file that nobody reads any more.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ds01d.adapters.files.atomic_write import TEMPORARY
from ds01d.adapters.files.permissions import ACCESS_LISTS, is_private
from ds01d.folders import open_folder, owner_of
from ds01d.logins import find_login

_FOLDER_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_LOCK_MODE: Final = 0o660  # who may read a lock may hold it for ever
_MAX_COPY: Final = 1 << 30


class ExclusiveAccess:
    """Takes folders over at the first call, and at later ones if somebody gave them away since."""

    def __init__(self, take_over: Callable[[], list[str]], folders: Iterable[Path]) -> None:
        self._take_over, self._folders = take_over, tuple(folders)
        self._rights: dict[Path, tuple[int, int]] | None = None

    def __call__(self) -> list[str]:
        """What has to be reported: what could not be taken over, and what was given away."""
        before, rights = self._rights, self._read_rights()
        given_away = [
            str(folder)
            for folder, (owner, mode) in rights.items()
            if before is not None
            and before.get(folder) != (owner, mode)
            and (owner != os.geteuid() or mode & _OTHERS_WRITE)
        ]
        if before is not None and not given_away:
            self._rights = rights
            return []
        problems = self._take_over()
        self._rights = self._read_rights()
        # Decision 237: a script does it every quarter of an hour, so the text is always the same.
        if given_away and not problems:
            return [f"{', '.join(given_away)}: a script let others write there; taken back"]
        return problems

    def _read_rights(self) -> dict[Path, tuple[int, int]]:
        statuses = ((folder, owner_of(folder)) for folder in self._folders)
        return {
            folder: (status.st_uid, stat.S_IMODE(status.st_mode))
            for folder, status in statuses
            if status is not None
        }


def take_over(places: Mapping[Path, Iterable[str]], locks: frozenset[str]) -> list[str]:
    """Take the right to write to folders and files in them from everybody else.

    `places`: for each folder, how the names of the files begin; others in it stay as they are.
    `locks`: the names of lock files. Gives a reason for each that stays as it is. Never raises.
    """
    problems = []
    for folder, prefixes in places.items():
        try:
            descriptor = open_folder(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{folder}: {error.strerror or error}")
            continue
        try:
            problems += _take_folder(folder, descriptor, tuple(prefixes), locks)
        except OSError as error:
            problems.append(f"{folder}: cannot become the service's own: {error.strerror}")
        finally:
            os.close(descriptor)
    return problems


def _take_folder(
    path: Path, folder: int, prefixes: tuple[str, ...], locks: frozenset[str]
) -> list[str]:
    status = os.fstat(folder)
    # An owner can always give itself the right back, so modes alone would prove nothing.
    if status.st_uid != os.geteuid():
        owner, me = find_login(status.st_uid), find_login(os.geteuid())
        return [f"{path} belongs to {owner}, who can still write the books; fix: chown {me} {path}"]
    _make_private(folder, _FOLDER_MODE)  # first: from here on nobody else puts a file there
    problems = []
    for name in sorted(os.listdir(folder)):
        # Files with other names are nobody's books: an administrator may keep copies there.
        if name.startswith(TEMPORARY) or not name.startswith(prefixes):
            continue
        try:
            _take_file(folder, name, _LOCK_MODE if name in locks else _FILE_MODE)
        except OSError as error:
            problems.append(f"{path / name}: cannot become the service's own: {error.strerror}")
    return problems


def _take_file(folder: int, name: str, mode: int) -> None:
    """Replace a regular file that others can write to; what is none is never read."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    # Opening a FIFO would wait, and a link could lead anywhere.
    if not stat.S_ISREG(status.st_mode):
        return
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=folder), "rb") as source:  # noqa: PTH123 - a descriptor
        if is_private(source.fileno(), mode):
            return
        if status.st_size > _MAX_COPY:  # one with holes would become as large as it claims to be
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        # A copy, not a chmod: who has the old file open for writing keeps that right for ever.
        temporary = f"{TEMPORARY}taken-{name}"[:255]
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as copy:  # noqa: PTH123
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                _make_private(copy.fileno(), mode)
                # Logs and records are read again when their times change, and nothing changed.
                os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fsync(copy.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(temporary, dir_fd=folder)  # on a full disk it would be in everybody's way
            raise


def _make_private(descriptor: int, mode: int) -> None:
    for name in ACCESS_LISTS:
        with suppress(OSError):  # there is none, or the file system has no such thing
            os.removexattr(descriptor, name)
    # The mode of the group counts only for a group that nobody else is in.
    os.fchown(descriptor, -1, os.getegid())
    os.fchmod(descriptor, mode)
