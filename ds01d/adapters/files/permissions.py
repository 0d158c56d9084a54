"""Who may change the books: root, and the group that owns them. Looks, and changes nothing."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

from ds01d.errors import NotPermitted


def require_access(folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
    """Raise `NotPermitted` if we may not change these, naming the group that may.

    What does not exist is left to whoever meets it.
    """
    for folder in folders:
        if folder.is_dir() and not _may(folder, os.W_OK | os.X_OK):
            raise NotPermitted(_told(folder))
    for file in files:
        if file.exists() and not _may(file, os.R_OK | os.W_OK):
            raise NotPermitted(_told(file))


def describe_readers(path: Path) -> str:
    """Who may read a file that we may not, for a message; "" if we may, or it cannot be told."""
    try:
        return "" if _may(path, os.R_OK) else _told(path)
    except OSError:
        return ""


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=True)


def _told(path: Path) -> str:
    status = path.stat()
    me = _user(os.geteuid())
    group = _group(status.st_gid)
    wanted = stat.S_IWGRP
    if status.st_mode & wanted and status.st_gid != 0:
        return (
            f"{path}: only root and the group {group} may change the books, and {me} is not in it:"
            f" usermod -aG {group} {me}, then log in again"
        )
    return (
        f"{path}: only {_user(status.st_uid)} may change it: for a group to book GPUs, as root:"
        f" chgrp GROUP {path} && chmod {'2775' if path.is_dir() else '664'} {path}"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"
