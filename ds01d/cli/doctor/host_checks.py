"""Checks of the host: permissions, file systems, locks, /proc, other writers, the clock.

Tests permissions with access(2), never by writing; takes a lock for an instant only.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ds01d import __version__
from ds01d.cli.doctor.folder_checks import check_folders
from ds01d.cli.doctor.logrotate_checks import check_logrotate
from ds01d.cli.doctor.service_checks import UNIT, check_service
from ds01d.cli.doctor.source_checks import Check, fail, ok, warn
from ds01d.cli.doctor.writer_checks import (
    ALLOCATORS,
    CRON,
    FIRST_ON_PATH,
    check_allocator,
    check_cron,
    check_hidden_commands,
    installed_commands,
)
from ds01d.cli.output.text import DisplayTime
from ds01d.config import Config
from ds01d.model.containers import EngineWarningKind
from ds01d.model.primitives import Wall
from ds01d.reporting.published_status import describe_delay, read_published_status
from ds01d.reporting.status import describe_failed, describe_failing

_CHANGE = os.W_OK | os.X_OK  # in a directory: files may be made and replaced
_ENOUGH_BYTES = 64 * 2**20
_LOCK_PATIENCE_S = 2.0


def check_host(config: Config, now: Wall) -> Iterator[Check]:
    """Every check of the host."""
    yield from check_directories(config)
    yield from check_folders(config)
    yield from check_logs(config)
    yield from check_locks(config)
    yield check_hidepid(Path("/proc"))
    yield check_daemon(config, now)
    yield from check_event_stream(config, now)
    yield from check_service(Path("/run/systemd/system"), Path("/var/log/journal"))
    yield from check_cron(CRON)
    yield check_allocator(ALLOCATORS)
    yield from check_hidden_commands(FIRST_ON_PATH, installed_commands())
    yield from check_logrotate((config.logs.operations, config.logs.allocations))
    yield check_clock(config, now)


def check_directories(config: Config) -> Iterator[Check]:
    """The folders that are written to, and the state as a file that can be replaced."""
    books, user = config.books, _effective_user()
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
            and _has_access(_nearest_parent(path), _CHANGE)
        ):
            yield ok(name, f"{path} will be created by the first pass")
        elif status is None:
            detail = f"{path} does not exist, or is not visible to {user}"
            yield fail(name, detail, "create it, or correct the configuration")
        elif not stat.S_ISDIR(status.st_mode):
            yield fail(
                name, f"{path} is not a directory", "replace it, or correct the configuration"
            )
        elif not _has_access(path, os.R_OK | _CHANGE):
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
    if not _has_access(state, os.R_OK | os.W_OK if sticky else os.R_OK):
        detail = (
            f"{state}, {_describe_mode(state.stat())}:"
            f" {_effective_user()} can neither write nor replace it"
        )
        fix = f"setfacl -m g:ds01:rw {state} (or systemd-tmpfiles --create ds01d.conf)"
        yield fail("state file", detail, fix)


def _is_mount(path: Path) -> bool:
    """Whether something is mounted at `path` itself; device numbers don't tell, on overlayfs."""
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
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return warn(name, f"{detail} is world-writable", f"chmod o-w {path}")
    return ok(name, detail)


def _describe_mode(status: os.stat_result) -> str:
    """As `ls -l` says it: the mode, owner and group."""
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"{stat.filemode(status.st_mode)} {user}:{group}"


def check_logs(config: Config) -> Iterator[Check]:
    """The two logs that lines are added to."""
    for name, path in (
        ("operations log", config.logs.operations),
        ("allocations log", config.logs.allocations),
    ):
        exists = _stat_path(path) is not None
        if _has_access(path, os.W_OK) if exists else _has_access(path.parent, _CHANGE):
            yield ok(name, f"{path} is writable")
        else:
            detail = f"{path} is not writable for {_effective_user()}; repairs continue without it"
            yield warn(name, detail, "create its folder, or grant write permission")


def check_locks(config: Config) -> Iterator[Check]:
    """The locks of the books and of the passes: free, or free after an instant."""
    books = config.books.state
    paths = (books.with_name(f"{books.name}.lock"), config.daemon.state_dir / "lock")
    for path in paths:
        yield _check_lock(path)


def _check_lock(path: Path) -> Check:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ok("lock", f"{path} will be created by the first pass")
    except PermissionError:
        detail = f"{path} cannot be opened by {_effective_user()}, so it may be free or not"
        return ok("lock", detail) if os.geteuid() else fail("lock", detail, f"rm {path}")
    except OSError as error:
        return fail("lock", f"{path}: {error.strerror}", "remove it, or correct its permissions")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            detail = f"{path} is not a regular file, so no pass can lock it"
            return fail("lock", detail, f"mv {path} {path}.aside")
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        # A pass holds the lock for an instant; only a longer hold is worth a warning.
        while not _is_free(descriptor):
            if time.monotonic() > deadline:
                detail = f"{path} has been locked for more than {_LOCK_PATIENCE_S:g} s"
                return warn("lock", detail, f"find its holder: fuser -v {path}")
            time.sleep(0.02)
    finally:
        os.close(descriptor)
    return ok("lock", f"{path} is free")


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_hidepid(proc: Path) -> Check:
    """Whether processes of other users are visible: a hidden one would look dead."""
    try:
        # Root's process 1 is unreadable with hidepid, and exists on every host.
        (proc / "1" / "cgroup").read_bytes()
    except OSError as error:
        detail = (
            f"{proc}/1/cgroup: {error.strerror}: processes of other users are hidden (hidepid?)"
        )
        return fail("processes", detail, "run as root with CAP_SYS_PTRACE and without ProtectProc=")
    return ok("processes", "processes of all users are visible")


def check_daemon(config: Config, now: Wall) -> Check:
    """Whether the daemon runs, and its passes succeed."""
    status, daemon_problem = read_published_status(config, now)
    if status is None or daemon_problem:
        fix = f"systemctl start {UNIT} (until then only ds01ctl reconcile repairs drift)"
        return warn("daemon", f"not running ({daemon_problem})", fix)
    for failing in (describe_failing(status.passes, now), describe_failed(status)):
        if failing:
            return fail("daemon", failing, f"fix what it names; journalctl -u {UNIT} -p err")
    late_reason = describe_delay(status, config, now)
    if late_reason:
        return warn(
            "daemon", late_reason, f"journalctl -u {UNIT} -p warning; systemctl status {UNIT}"
        )
    if status.degraded:
        return warn(
            "daemon",
            f"degraded: {'; '.join(status.degraded)}",
            f"fix what it names; journalctl -u {UNIT} -p warning",
        )
    if status.version != __version__:
        detail = f"running version {status.version}, but {__version__} is installed"
        return warn("daemon", detail, f"systemctl restart {UNIT}")
    return ok("daemon", f"running, mode {status.mode}, version {status.version}")


def check_event_stream(config: Config, now: Wall) -> Iterator[Check]:
    """Warnings of the daemon about Docker's event stream, which it alone follows."""
    status, daemon_problem = read_published_status(config, now)
    for warning in status.warnings if status is not None and not daemon_problem else ():
        if warning.kind is not EngineWarningKind.NO_LASTING_ID:
            yield warn("event stream", warning.text, warning.fix)


def check_clock(config: Config, now: Wall) -> Check:
    """Whether the clock is not behind the time of the last write."""
    try:
        written = Wall(config.books.state.stat().st_mtime)
    except OSError:
        written = now
    # A minute of tolerance for file servers with their own clock.
    if written > now + 60:
        detail = f"the state was written {DisplayTime(written).relative_to(now)}"
        return warn("clock", detail, "set the clock: timedatectl")
    return ok("clock", f"{DisplayTime(now).to_local()} (the books' times are local)")


def _stat_path(path: Path, *, follow: bool = True) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError:
        return None


def _has_access(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _nearest_parent(path: Path) -> Path:
    return next((parent for parent in path.parents if _stat_path(parent) is not None), path)


def _effective_user() -> str:
    return f"uid {os.geteuid()}"
