"""Checks of the host: paths, locks, /proc, the daemon, other writers, the clock.

Writes nothing, and takes a lock for an instant only.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ds01d import __version__
from ds01d.cli.doctor.fleet_checks import check_fleet
from ds01d.cli.doctor.folder_checks import check_folders, check_writers
from ds01d.cli.doctor.logrotate_checks import check_logrotate
from ds01d.cli.doctor.notice_checks import check_notices
from ds01d.cli.doctor.path_checks import check_directories, check_logs, effective_user
from ds01d.cli.doctor.service_checks import UNIT, check_lab_units, check_service
from ds01d.cli.doctor.source_checks import Check, fail, ok, warn
from ds01d.cli.doctor.writer_checks import (
    CRON,
    FIRST_ON_PATH,
    check_allocators,
    check_cron,
    check_hidden_commands,
    check_sharing,
    check_wrapper,
    installed_commands,
)
from ds01d.config import Config, LogsConfig
from ds01d.documents.values import DisplayTime
from ds01d.model.containers import EngineWarningKind
from ds01d.model.primitives import Wall
from ds01d.reporting.published_status import describe_delay, read_published_status
from ds01d.reporting.status_summary import describe_failed, describe_failing

_LOCK_PATIENCE_S = 2.0


def check_host(config: Config, now: Wall) -> Iterator[Check]:
    """Every check of the host."""
    yield from check_directories(config)
    yield from check_folders(config)
    yield check_writers(config)
    yield from check_logs(config)
    yield from check_locks(config)
    yield check_hidepid(Path("/proc"))
    yield check_daemon(config, now)
    yield from check_event_stream(config, now)
    booted = Path("/run/systemd/system")
    yield from check_notices(config, booted)
    yield from check_fleet(config, now, booted)
    yield from check_service(booted, Path("/var/log/journal"))
    yield from check_cron(CRON)
    yield from check_allocators()
    yield from check_sharing(config)
    yield from check_wrapper()
    yield from check_lab_units(booted)
    yield from check_hidden_commands(FIRST_ON_PATH, installed_commands())
    yield from check_logrotate(_list_rotated_logs(config))
    yield check_clock(config, now)


def _list_rotated_logs(config: Config) -> tuple[Path, ...]:
    """The logs of ds01d, and those of the lab's that the package's file for logrotate names too."""
    # Decision 238: a log that two files for logrotate name makes it skip all of ours.
    ours, usual = ((logs.operations, logs.allocations) for logs in (config.logs, LogsConfig()))
    return tuple(dict.fromkeys((*ours, *(path for path in usual if path.exists()))))


def check_locks(config: Config) -> Iterator[Check]:
    """The locks of the books and of the passes: free, or free after an instant."""
    books = config.books.state
    paths = (books.with_name(f"{books.name}.lock"), config.daemon.state_dir / "lock")
    for path in paths:
        yield _check_lock(path)


def _check_lock(path: Path) -> Check:
    # O_NONBLOCK: to open a FIFO of that name would wait for its writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ok("lock", f"{path} will be created by the first pass")
    except PermissionError:
        detail = f"{path} cannot be opened by {effective_user()}, so it may be free or not"
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
    # Shared: two doctors at once are not in each other's way.
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
    # The worst first, since one line is all that the daemon gets.
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
