"""Processes that are looked up again and again, as those on GPUs are with each sample of NVML.

Of one that was there the last time, two reads of files that are kept open show whether it is still
the same; and what can be read before is read while somebody else is waited for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ds01d.adapters.host.cgroup_paths import find_container
from ds01d.adapters.host.process_entry import read_owner
from ds01d.adapters.host.processes import Process, ProcessDescription, Processes, ProcessGone

PROC = Path("/proc")
MOST_OPEN = 128  # of the 1,024 descriptors that a process may usually have, two each
_AHEAD_S = 1.0  # what was read longer ago may have changed
_MOST_BYTES = 1 << 16


class OpenProcess:
    """Files of the process that has a pid now, which stay its own whoever has that pid later.

    Once it has ended the kernel answers each read with ESRCH (fs/proc/base.c). Raises `OSError`.
    """

    _cgroup = _command = -1

    def __init__(self, pid: int) -> None:
        self._cgroup = os.open(f"{PROC}/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        self._command = os.open(f"{PROC}/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        for descriptor in (self._cgroup, self._command):
            if descriptor >= 0:
                os.close(descriptor)

    def read_cgroup(self) -> str:
        return os.pread(self._cgroup, _MOST_BYTES, 0).decode("utf-8", "replace")

    def read_command(self) -> str:
        return os.pread(self._command, _MOST_BYTES, 0).decode("utf-8", "replace").rstrip("\n")


class _Followed(NamedTuple):
    """`owner`: of its folder in /proc, which shows a change of user. `files`: None without any."""

    owner: int
    description: ProcessDescription
    files: OpenProcess | None


class FollowedProcesses(Processes):
    """Looks processes up, one caller at a time; `look_ahead` begins with those of the last time."""

    _last: Mapping[int, _Followed] = {}
    # The owner, and the command; of those without open files the cgroup instead.
    _ahead: Mapping[int, tuple[int, str]] = {}
    _ahead_until = 0.0

    def look_ahead(self) -> None:
        """Read what the next `look_up` can use of the processes of the last one; never raises."""
        ahead: dict[int, tuple[int, str]] = {}
        for pid, last in self._last.items():
            with suppress(ProcessGone, OSError):
                ahead[pid] = self._read_first(pid, last)
        self._ahead, self._ahead_until = ahead, time.monotonic() + _AHEAD_S

    def look_up(self, pids: Iterable[int]) -> Mapping[int, Process]:
        self._current: dict[int, _Followed] = {}
        try:
            return super().look_up(pids)
        finally:
            self._last, self._ahead = self._current, {}

    def _describe(self, pid: int) -> ProcessDescription:
        last = self._last.get(pid)
        again = None if last is None else self._read_again(pid, last)
        if last is not None and again is not None:
            owner, cgroup, command = again
            container = find_container(cgroup, self._is_known)
            # One that left its cgroup belongs to its parents' container, which is read as of a new.
            if container is not None and owner == last.owner:
                description = last.description._replace(container=container, command=command)
                self._current[pid] = last._replace(description=description)
                return description
        files = self._open(pid)
        owner = self._read_owner(pid)
        description = super()._describe(pid)
        self._current[pid] = _Followed(owner, description, files)
        return description

    def _read_again(self, pid: int, last: _Followed) -> tuple[int, str, str] | None:
        """Owner, cgroup and command, as read ahead or as they are now; None: of another process."""
        ahead = self._ahead.get(pid) if time.monotonic() < self._ahead_until else None
        try:
            owner, text = ahead or self._read_first(pid, last)
            # Read last: who had the pid then and has it now had it all the time in between.
            if last.files is not None:
                return owner, last.files.read_cgroup(), text
            entry = self._read_stat(pid)
        except (ProcessGone, ProcessLookupError):
            return None
        return (owner, text, entry.command) if entry.started == last.description.started else None

    def _read_first(self, pid: int, last: _Followed) -> tuple[int, str]:
        owner = self._read_owner(pid)
        return owner, last.files.read_command() if last.files else self._read_text(pid, "cgroup")

    def _open(self, pid: int) -> OpenProcess | None:
        if self.proc != PROC or len(self._current) >= MOST_OPEN:
            return None
        # Ended, or no descriptor left: then all that is known of it is read again each time.
        with suppress(OSError):
            return OpenProcess(pid)
        return None

    def _read_owner(self, pid: int) -> int:
        return self._read(read_owner, pid)
