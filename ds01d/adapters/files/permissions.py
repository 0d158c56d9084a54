"""Who may change the books: root, and the group that owns them. Looks, and changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ds01d.errors import NotPermitted
from ds01d.logins import find_group, find_login

ACCESS_LISTS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def require_access(
    folders: Iterable[Path], files: Iterable[Path] = (), *, is_shared: bool = False
) -> None:
    """Raise `NotPermitted` if we may not change these, naming the group that may.

    `is_shared`: a group may be permitted to, and the message has the command. What does not exist
    is checked where it is opened.
    """
    for folder in folders:
        if folder.is_dir() and not _has_access(folder, os.W_OK | os.X_OK):
            raise NotPermitted(_explain_refusal(folder, is_shared=is_shared))
    for file in files:
        if file.exists() and not _has_access(file, os.R_OK | os.W_OK):
            raise NotPermitted(_explain_refusal(file, is_shared=is_shared))


def describe_readers(path: Path, *, is_shared: bool) -> str:
    """Who may read a file that this process may not, for a message; "" otherwise."""
    try:
        return "" if _has_access(path, os.R_OK) else _explain_refusal(path, is_shared=is_shared)
    except OSError:
        return ""


def is_private(descriptor: int, mode: int) -> bool:
    """Nobody but its owner, who we are, can write to an open file; `mode`: one that is meant."""
    status = os.fstat(descriptor)
    return (
        status.st_uid == os.geteuid()
        # A second name may lie where somebody else can write through it; a folder has none.
        and (status.st_nlink == 1 or stat.S_ISDIR(status.st_mode))
        and not _has_access_list(descriptor)
        and (
            not status.st_mode & _OTHERS_WRITE
            or (stat.S_IMODE(status.st_mode) == mode and status.st_gid == os.getegid())
        )
    )


def _has_access_list(descriptor: int) -> bool:
    with suppress(OSError):
        return any(name in ACCESS_LISTS for name in os.listxattr(descriptor))
    return False


def _has_access(path: Path, access: int) -> bool:
    # By the kernel's answer: access lists and read-only mounts count, modes alone do not say.
    return os.access(path, access, effective_ids=True)


def _explain_refusal(path: Path, *, is_shared: bool) -> str:
    status = path.stat()
    me = find_login(os.geteuid())
    group = find_group(status.st_gid)
    group_bit = stat.S_IWGRP
    if status.st_mode & group_bit and status.st_gid != 0:
        return (
            f"{path}: only root and the group {group} may change the books, and {me} is not in it:"
            f" usermod -aG {group} {me}, then log in again"
        )
    refusal = f"{path}: only {find_login(status.st_uid)} may change it"
    if not is_shared:
        return refusal
    return (
        f"{refusal}: for a group to book GPUs, as root: chgrp GROUP {path}"
        f" && chmod {'2775' if path.is_dir() else '664'} {path}"
    )
