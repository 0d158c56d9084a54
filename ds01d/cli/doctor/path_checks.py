"""Checks of the folders and files that ds01d writes: existence, permissions, free space.

Tests permissions with access(2), never by writing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ds01d.cli.doctor.source_checks import Check, fail, ok, warn
from ds01d.config import Config
from ds01d.logins import find_group, find_login

_CHANGE = os.W_OK | os.X_OK  # in a directory: files may be made and replaced
_ENOUGH_BYTES = 64 * 2**20


def check_directories(config: Config) -> Iterator[Check]:
    """The folders that are written to, and the state as a file that can be replaced."""
    books, user = config.books, effective_user()
    folders = {
        "folder of the state": books.state.parent,
        "folder of metadata": books.metadata,
        "ds01d's folder": config.daemon.state_dir,
    }
    for name, path in folders.items():
        status = _stat_path(path)
        if (
            status is None
            and path == config.daemon.state_dir
            and has_access(_nearest_parent(path), _CHANGE)
        ):
            yield ok(name, f"{path} will be created by the first pass")
        elif status is None:
            detail = f"{path} does not exist, or is not visible to {user}"
            yield fail(name, detail, "create it, or correct the configuration")
        elif not stat.S_ISDIR(status.st_mode):
            yield fail(
                name, f"{path} is not a directory", "replace it, or correct the configuration"
            )
        elif not has_access(path, os.R_OK | _CHANGE):
            yield fail(
                name, f"{path} is not writable for {user}", "run as root, or grant write permission"
            )
        else:
            yield _check_space(name, path)
    state = _stat_path(books.state, follow=False)
    if state is not None and stat.S_ISLNK(state.st_mode):
        yield fail(
            "state file", f"{books.state} is a symbolic link", "set books.state to its target"
        )
    elif state is not None and _is_mount(books.state):
        detail = f"{books.state} is a mount point, so it cannot be replaced atomically"
        yield warn("state file", detail, "mount its folder instead")
    elif state is not None and os.geteuid() not in {0, state.st_uid}:
        yield from _check_replaceable(books.state)


def _check_replaceable(state: Path) -> Iterator[Check]:
    """Whether a file of somebody else can be replaced: by those who may read it and its folder."""
    folder = state.parent.stat()
    # In a sticky folder rename(2) is denied, so the file itself must be writable.
    sticky = folder.st_mode & stat.S_ISVTX and folder.st_uid != os.geteuid()
    if not has_access(state, os.R_OK | os.W_OK if sticky else os.R_OK):
        detail = (
            f"{state}, {_describe_mode(state.stat())}:"
            f" {effective_user()} can neither write nor replace it"
        )
        tmpfiles = "systemd-tmpfiles --create /usr/share/ds01d/group.tmpfiles"
        fix = f"setfacl -m g:ds01:rw {state} (or {tmpfiles})"
        yield fail("state file", detail, fix)


def _is_mount(path: Path) -> bool:
    """Whether something is mounted at `path` itself; device numbers don't show it on overlayfs."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    places = {fields[4] for line in mounts.splitlines() if len(fields := line.split()) > 4}
    return str(path).replace(" ", "\\040") in places


def _check_space(name: str, path: Path) -> Check:
    space = os.statvfs(path)
    if space.f_flag & os.ST_RDONLY:
        return fail(name, f"{path} is mounted read-only", "remount it read-write")
    free = space.f_bavail * space.f_frsize
    # Nothing is repaired without a history entry, so a full disk stops repairs.
    if free < _ENOUGH_BYTES or (space.f_files and space.f_favail < 100):
        detail = f"{path}: {free // 2**20} MiB and {space.f_favail} files free"
        return warn(name, detail, "free disk space: nothing is repaired without a history")
    status = path.stat()
    detail = f"{path}, {_describe_mode(status)}"
    # With the sticky bit others cannot replace what is ours.
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return warn(name, f"{detail} is world-writable", f"chmod o-w {path}")
    return ok(name, detail)


def _describe_mode(status: os.stat_result) -> str:
    """As in `ls -l`: the mode, owner and group."""
    return (
        f"{stat.filemode(status.st_mode)} {find_login(status.st_uid)}:{find_group(status.st_gid)}"
    )


def check_logs(config: Config) -> Iterator[Check]:
    """The logs that lines are added to."""
    logs = {
        "operations log": config.logs.operations,
        "allocations log": config.logs.allocations,
        "events": config.logs.events_path,
    }
    for name, path in logs.items():
        if path is None:
            continue
        exists = _stat_path(path) is not None
        if has_access(path, os.W_OK) if exists else has_access(path.parent, _CHANGE):
            yield ok(name, f"{path} is writable")
        else:
            detail = f"{path} is not writable for {effective_user()}; repairs continue without it"
            yield warn(name, detail, "create its folder, or grant write permission")


def _stat_path(path: Path, *, follow: bool = True) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError:
        return None


def has_access(path: Path, mode: int) -> bool:
    """As access(2), for the effective user."""
    return os.access(path, mode, effective_ids=True)


def _nearest_parent(path: Path) -> Path:
    return next((parent for parent in path.parents if _stat_path(parent) is not None), path)


def effective_user() -> str:
    return f"uid {os.geteuid()}"
