"""Who holds a flock: by /proc/locks, else by the descriptors of all processes (proc(5), fdinfo).

The kernel names the process that took a lock. That one may be gone, and a child that inherited the
descriptor holds it still. Asked when somebody waited in vain, not in the ordinary course.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ds01d.logins import find_login
from ds01d.text import make_printable

_PROC = Path("/proc")


def holder_of(file: os.stat_result) -> str:
    """Pid, login and command line of a process that holds a lock on `file`; "" if not known."""
    with suppress(OSError):
        pids = list(_find_takers(file))
        alive = [pid for pid in pids if (_PROC / str(pid)).exists()]
        # In a PID namespace the kernel lists no lock of one that took it and is gone.
        if not alive:
            alive = list(_find_inheritors(file))
        for pid in alive or pids:
            return f"pid {pid}{_describe_owner(pid)} ({_read_command(pid)})"
    return ""


def _find_takers(file: os.stat_result) -> Iterator[int]:
    """Those that took it; file systems without a device of their own show another one."""
    # The kernel writes device and inode only; btrfs and overlays show another device there.
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    elsewhere = []
    for line in (_PROC / "locks").read_text(encoding="ascii").splitlines():
        lock = _parse_lock(line)
        if lock is not None and lock[2] == file.st_ino:
            if lock[1] == device:
                yield lock[0]
            else:
                elsewhere.append(lock[0])
    yield from elsewhere


def _parse_lock(line: str) -> tuple[int, str, int] | None:
    """Pid, device and inode of a flock; "->" in the place of the kind: somebody who waits."""
    words = line.split()
    if len(words) < 6 or words[1] != "FLOCK" or not words[4].isdecimal():
        return None
    device, _, inode = words[5].rpartition(":")
    return (int(words[4]), device, int(inode)) if inode.isdecimal() else None


def _find_inheritors(file: os.stat_result) -> Iterator[int]:
    """Processes that have a descriptor with a flock on `file`; of those we may look at."""
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            with suppress(OSError):
                if any(
                    _holds_lock(info, file.st_ino) for info in Path(entry.path, "fdinfo").iterdir()
                ):
                    yield int(entry.name)


def _holds_lock(info: Path, inode: int) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        for line in info.read_text(encoding="ascii").splitlines():
            if line.startswith("lock:"):
                lock = _parse_lock(line.removeprefix("lock:").strip())
                if lock is not None and lock[2] == inode:
                    return True
    return False


def _describe_owner(pid: int) -> str:
    with suppress(OSError):
        return f" of {find_login((_PROC / str(pid)).stat().st_uid)}"
    return ""


def _read_command(pid: int) -> str:
    with suppress(OSError):
        # A command line may be two megabytes long, and is shown in one line.
        words = (_PROC / str(pid) / "cmdline").read_bytes()[:200].replace(b"\0", b" ")
        if words.strip():
            return make_printable(words.decode(errors="replace").strip())
        return make_printable((_PROC / str(pid) / "comm").read_text(errors="replace").strip())
    return "its command is not to be seen"
