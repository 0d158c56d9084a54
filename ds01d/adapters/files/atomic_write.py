"""Files replaced atomically, safe against crashes and concurrent readers.

A half-written file never has the name that readers open, and no path can be redirected by a user
without rights: a name is looked up in an open descriptor of its directory, which `ds01d.folders`
has checked.

Where `folder` is taken, it is that descriptor, and the path serves for messages only.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ds01d import folders
from ds01d.adapters.files import posix_acl, syncs
from ds01d.errors import BooksChanged, WriteFailed
from ds01d.folders import UntrustedFolder

TEMPORARY = ".ds01d-tmp-"
ABANDONED_S = 600.0
# decision 132: without set-user-ID and set-group-ID, or a copy of a user's file would run as root.
_PERMISSION_BITS = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO


@contextmanager
def opened_folder(path: Path, folder: int | None = None) -> Iterator[int]:
    """A descriptor of the directory `path`; `folder` itself where that is already one.

    Raises `OSError`, an `UntrustedFolder` where the path may lead elsewhere.
    """
    if folder is not None:
        yield folder
        return
    with folders.opened_folder(path) as descriptor:
        yield descriptor


def replace_file(
    path: Path,
    data: bytes,
    *,
    mode: int = 0o644,
    like: os.stat_result | None = None,
    before: Callable[[], object] | None = None,
    durable: bool = True,
    folder: int | None = None,
) -> None:
    """Put `data` in the place of a file, or make it: all of it or nothing, also after a crash.

    Mode, owner, group and ACL of a file that is replaced are kept as far as that is permitted; an
    owner or group that is not keeps its rights by an entry of the ACL. A new file takes those of
    `like`, else `mode` and, as far, owner and group of its directory. Where the group may write to
    the directory it may write to a file that it may read: writers in place need it, and nobody
    gains by it. `before` is called when all is ready for the rename; what it raises leaves
    everything as it was.
    """
    with wrap_write_errors(path), opened_folder(path.parent, folder) as fd:
        # By descriptor of the folder: a rename of a parent must not lead us elsewhere.
        old = _stat_replaceable(path, fd)
        with _temporary_file(path, fd, data, like, mode, old=old, durable=durable) as temporary:
            if before is not None:
                before()
            os.rename(temporary, path.name, src_dir_fd=fd, dst_dir_fd=fd)
        if durable:
            fsync_folder(fd, path)


def create_file(
    path: Path,
    data: bytes,
    *,
    mode: int = 0o644,
    like: os.stat_result | None = None,
    durable: bool = True,
    folder: int | None = None,
) -> None:
    """As `replace_file`, for a file that is not there yet; raises `BooksChanged` if it is."""
    with wrap_write_errors(path), opened_folder(path.parent, folder) as fd:
        with _temporary_file(path, fd, data, like, mode, durable=durable) as temporary:
            try:
                # A link fails where a name exists, which a rename would take over in silence.
                os.link(temporary, path.name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                raise BooksChanged(f"{path} exists already") from None
        if durable:
            fsync_folder(fd, path)


def change_owner(descriptor: int, owner: int, group: int) -> None:
    """Give a file to both, or to the one of them that is permitted."""
    # One by one: an unprivileged process may give a file to its group, and not to an owner.
    for ids in ((owner, -1), (-1, group)):
        with suppress(PermissionError):
            os.fchown(descriptor, *ids)


def remove_abandoned(folder: int) -> None:
    """Remove the temporary files of writers that were killed; nobody writes for ten minutes."""
    for name in os.listdir(folder):
        if name.startswith(TEMPORARY):
            with suppress(OSError):
                modified = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                # Also those from the future: the clock may have been set back since.
                if abs(time.time() - modified) > ABANDONED_S:
                    os.unlink(name, dir_fd=folder)


@contextmanager
def wrap_write_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `WriteFailed` with a fix."""
    try:
        yield
    except OSError as error:
        raise explain_failure(path, error) from error


def explain_failure(path: Path, error: OSError) -> WriteFailed:
    advice = error.fix if isinstance(error, UntrustedFolder) else suggest_fix(error.errno)
    return WriteFailed(f"{path} was not written: {error.strerror or error}; {advice}")


def suggest_fix(number: int | None) -> str:
    match number:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "make room on its file system (or raise the quota or file size limit)"
        case errno.EROFS:
            return (
                "its file system is read-only: mount it writable, or allow it in the unit, "
                "then restart the service"
            )
        case errno.EACCES | errno.EPERM:
            return "run as root, or give this user write access"
        case errno.ENOENT | errno.ENOTDIR:
            return "create its directory, or set the right path in the configuration"
        case errno.EBUSY | errno.EXDEV:
            return "it is mounted by itself: mount its directory instead"
        case errno.ELOOP:
            return "a symbolic link is not followed: put the file itself there"
        case _:
            pass
    return "ds01d will try again"


def fsync_folder(folder: int, path: Path) -> None:
    syncs.sync_later(
        folder,
        lambda error: WriteFailed(
            f"{path} was written, but might not outlast a power failure: {error.strerror}"
        ),
    )


def _stat_replaceable(path: Path, folder: int) -> os.stat_result | None:
    try:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise WriteFailed(f"{path} was not written: what is there is not a regular file")
    return status


@contextmanager
def _temporary_file(
    path: Path,
    folder: int,
    data: bytes,
    like: os.stat_result | None,
    mode: int,
    *,
    old: os.stat_result | None = None,
    durable: bool,
) -> Iterator[str]:
    """A file with `data` under a name of its own; `old`: what is at `path`, to be taken after."""
    # Not to be guessed, so nobody can have put a link there before.
    name = TEMPORARY + secrets.token_hex(8)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Private until its rights are set: nobody reads or writes half of it.
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            rights = _copy_rights(descriptor, old or like, os.fstat(folder), mode)
            if old is not None:  # By descriptor: others may have exchanged the name.
                posix_acl.copy_acl(folder, path.name, descriptor)
                posix_acl.keep_access(descriptor, old)
                if stat.S_IMODE(os.fstat(descriptor).st_mode) & rights != rights:
                    os.fchmod(descriptor, rights)  # The mask of a list that was copied.
            if durable:
                syncs.sync(descriptor)
        finally:
            os.close(descriptor)
        yield name
    finally:
        with suppress(OSError):  # Renamed by now, if all went well.
            os.unlink(name, dir_fd=folder)


def _copy_rights(
    descriptor: int, like: os.stat_result | None, folder: os.stat_result, mode: int
) -> int:
    """Give owner, group and mode; the mode."""
    model = folder if like is None else like
    change_owner(descriptor, model.st_uid, model.st_gid)
    mode = (mode if like is None else like.st_mode) & _PERMISSION_BITS
    # Of a folder like /tmp its group is nobody's; a sticky one that only a group shares is shared.
    public = stat.S_ISVTX | stat.S_IWOTH
    shared = folder.st_mode & stat.S_IWGRP and folder.st_mode & public != public
    if shared and mode & stat.S_IRGRP:
        mode |= stat.S_IWGRP
    os.fchmod(descriptor, mode)
    return mode
