"""Processes in /proc: the files that the kernel has of each, read with few calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ds01d.adapters.host.clocks import to_signed_ticks

_READ = os.O_RDONLY | os.O_CLOEXEC
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """A process. Its identity is `started` (clock ticks since boot): a pid is used again.

    `state` is the kernel's letter; `threads` counts those that are left, the first included.
    """

    pid: int
    command: str
    state: str
    parent: int
    session: int
    flags: int
    threads: int
    started: int

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs. The first thread may end while others still hold the GPU."""
        return self.state in "ZX" and self.threads <= 1


def read_entry(proc: Path, pid: int) -> ProcessEntry:
    """Raises `OSError` where there is none, `ValueError` or `IndexError` for another format."""
    text = read_file(proc, pid, "stat").decode("utf-8", "replace")
    # A command may hold spaces and parentheses.
    command, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return ProcessEntry(
        pid=pid,
        command=command,
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        flags=int(fields[6]),
        threads=int(fields[17]),
        started=to_signed_ticks(int(fields[19])),
    )


def read_file(proc: Path, pid: int, name: str) -> bytes:
    """Read a small file of a process; half as dear as pathlib, and there are many."""
    descriptor = os.open(f"{proc}/{pid}/{name}", _READ)
    try:
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def read_uid(proc: Path, pid: int) -> int | None:
    """The real uid of a process; None where the kernel has none of it."""
    # By LF alone: a process chooses its name, in which the kernel escapes only LF.
    for line in read_file(proc, pid, "status").split(b"\n"):
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def read_owner(proc: Path, pid: int) -> int:
    """The owner of a process's folder: its effective uid, or root where it may not be traced."""
    # A call for each process on a GPU: a path object would cost as much as the call.
    return os.stat(f"{proc}/{pid}").st_uid  # noqa: PTH116


def list_cgroups(proc: Path, without: frozenset[str]) -> Iterator[tuple[int, bytes | None]]:
    """The pid and the cgroup file of every process that has not ended meanwhile.

    None: its path is longer than the kernel gives. `without`: pids that are left out. Raises
    `OSError` where a process may not be read.
    """
    # The loop of a release, over hundreds of processes: no call of our own for any of them.
    folder = os.open(proc, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(folder):  # noqa: PTH208 - by descriptor
            if not name.isdecimal() or name in without:
                continue
            try:
                descriptor = os.open(f"{name}/cgroup", _READ, dir_fd=folder)
                try:
                    text = os.read(descriptor, _MOST_BYTES)
                finally:
                    os.close(descriptor)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                yield int(name), None
                continue
            yield int(name), text
    finally:
        os.close(folder)
