"""Processes that are looked up again and again, as those on GPUs are with each sample of NVML.

What may have changed of one that was there the last time is read while somebody else is waited for,
from files that are kept open; then one call shows for all of them that they are still the same.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ds01d.adapters.host.cgroup_paths import find_container
from ds01d.adapters.host.process_entry import read_owner
from ds01d.adapters.host.processes import Process, ProcessDescription, Processes, ProcessGone

PROC = Path("/proc")
MOST_OPEN = 128  # of the 1,024 descriptors that a process may usually have, three each
_AHEAD_S = 1.0  # what was read longer ago may have changed
_MOST_BYTES = 1 << 16


class OpenProcess:
    """Files of the process that has a pid now, which stay its own when another has that pid.

    Raises `OSError` where there is none, and for each read once it has ended (ESRCH,
    fs/proc/base.c).
    """

    _cgroup = _command = handle = -1

    def __init__(self, pid: int) -> None:
        # First: until it reports an end, what was opened by pid after it is of its process.
        self.handle = os.pidfd_open(pid)
        self._cgroup = os.open(f"{PROC}/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        self._command = os.open(f"{PROC}/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        for descriptor in (self._cgroup, self._command, self.handle):
            if descriptor >= 0:
                os.close(descriptor)

    def read_cgroup(self) -> str:
        return os.pread(self._cgroup, _MOST_BYTES, 0).decode("utf-8", "replace")

    def read_command(self) -> str:
        return os.pread(self._command, _MOST_BYTES, 0).decode("utf-8", "replace").rstrip("\n")


class _Changing(NamedTuple):
    """What may change of a process. `owner`: of its folder in /proc, its effective uid."""

    owner: int
    cgroup: str
    command: str


class _Followed(NamedTuple):
    """`files`: None where none could be kept open."""

    owner: int
    description: ProcessDescription
    files: OpenProcess | None


class FollowedProcesses(Processes):
    """Looks processes up, one caller at a time; `look_ahead` begins with those of the last time."""

    _last: Mapping[int, _Followed] = {}
    _ahead: Mapping[int, _Changing] = {}
    _ahead_until = 0.0

    def look_ahead(self) -> None:
        """Read what the next `look_up` can use of the processes of the last one; never raises."""
        ahead: dict[int, _Changing] = {}
        for pid, last in self._last.items():
            with suppress(ProcessGone, OSError):
                ahead[pid] = self._read_changing(pid, last)
        self._ahead, self._ahead_until = ahead, time.monotonic() + _AHEAD_S

    def look_up(self, pids: Iterable[int]) -> Mapping[int, Process]:
        self._current: dict[int, _Followed] = {}
        if time.monotonic() >= self._ahead_until:
            self._ahead = {}
        # Last: whose pidfd reports no end has had the pid since before it was read ahead.
        self._ended = self._find_ended()
        try:
            return super().look_up(pids)
        finally:
            self._last, self._ahead = self._current, {}

    def _find_ended(self) -> frozenset[int]:
        """The handles of the processes that have ended, of those that were read ahead."""
        poll = select.poll()
        for pid in self._ahead:
            if (files := self._last[pid].files) is not None:
                poll.register(files.handle, select.POLLIN)
        return frozenset(handle for handle, _ in poll.poll(0))

    def _describe(self, pid: int) -> ProcessDescription:
        last = self._last.get(pid)
        again = None if last is None else self._read_again(pid, last)
        if last is not None and again is not None:
            container = find_container(again.cgroup, self._is_known)
            # One that left its cgroup belongs to its parents' container, which is read as of a new.
            if container is not None and again.owner == last.owner:
                description = last.description._replace(container=container, command=again.command)
                self._current[pid] = last._replace(description=description)
                return description
        files = self._open(pid)
        owner = self._read_owner(pid)
        description = super()._describe(pid)
        self._current[pid] = _Followed(owner, description, files)
        return description

    def _read_again(self, pid: int, last: _Followed) -> _Changing | None:
        """What changed of a process, as read ahead or as it is now; None: of another process."""
        ahead = self._ahead.get(pid)
        try:
            if last.files is not None:
                is_ahead = ahead is not None and last.files.handle not in self._ended
                return ahead if is_ahead else self._read_changing(pid, last)
            changing = ahead or self._read_changing(pid, last)
            # Read last: who had the pid then and has it now had it all the time in between.
            entry = self._read_stat(pid)
        except (ProcessGone, ProcessLookupError):
            return None
        is_same = entry.started == last.description.started
        return changing._replace(command=entry.command) if is_same else None

    def _read_changing(self, pid: int, last: _Followed) -> _Changing:
        owner = self._read_owner(pid)
        if last.files is None:
            return _Changing(owner, self._read_text(pid, "cgroup"), "")
        # The owner is read by pid: a file that still can be read shows whose that was.
        return _Changing(owner, command=last.files.read_command(), cgroup=last.files.read_cgroup())

    def _open(self, pid: int) -> OpenProcess | None:
        if self.proc != PROC or len(self._current) >= MOST_OPEN:
            return None
        # Ended, or no descriptor left: then all that is known of it is read again each time.
        with suppress(OSError):
            return OpenProcess(pid)
        return None

    def _read_owner(self, pid: int) -> int:
        return self._read(read_owner, pid)
