"""Processes that are looked up again and again, as those on GPUs are with each sample of NVML.

Of one that was there the last time, half of the reads show that it is still the same; and what can
be read before is read while somebody else is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from ds01d.adapters.host.cgroup_paths import find_container
from ds01d.adapters.host.process_entry import read_owner
from ds01d.adapters.host.processes import Process, ProcessDescription, Processes, ProcessGone

_AHEAD_S = 1.0  # what was read longer ago may have changed


class _Followed(NamedTuple):
    """`owner`: of its folder in /proc, which shows a change of user."""

    owner: int
    description: ProcessDescription


class FollowedProcesses(Processes):
    """Looks processes up, one caller at a time; `look_ahead` begins with those of the last time."""

    _last: Mapping[int, _Followed] = {}
    _ahead: Mapping[int, tuple[int, str]] = {}  # owner and cgroup
    _ahead_until = 0.0

    def look_ahead(self) -> None:
        """Read what the next `look_up` can use of the processes of the last one; never raises."""
        ahead: dict[int, tuple[int, str]] = {}
        for pid in self._last:
            with suppress(ProcessGone, OSError):
                ahead[pid] = self._read_owner(pid), self._read_text(pid, "cgroup")
        self._ahead, self._ahead_until = ahead, time.monotonic() + _AHEAD_S

    def look_up(self, pids: Iterable[int]) -> Mapping[int, Process]:
        self._current: dict[int, _Followed] = {}
        try:
            return super().look_up(pids)
        finally:
            self._last, self._ahead = self._current, {}

    def _describe(self, pid: int) -> ProcessDescription:
        last = self._last.get(pid)
        if last is not None:
            owner, cgroup = self._read_changing(pid)
            container = find_container(cgroup, self._is_known)
            # Read last: who had the pid then and has it now had it all the time in between.
            entry = self._read_stat(pid)
            before = last.description
            # One that left its cgroup belongs to its parents' container, which is read as of a new.
            if container is not None and (entry.started, owner) == (before.started, last.owner):
                description = before._replace(container=container, command=entry.command)
                self._current[pid] = last._replace(description=description)
                return description
        owner = self._read_owner(pid)
        description = super()._describe(pid)
        self._current[pid] = _Followed(owner, description)
        return description

    def _read_changing(self, pid: int) -> tuple[int, str]:
        """Owner and cgroup, as read ahead or as they are now."""
        read = self._ahead.get(pid) if time.monotonic() < self._ahead_until else None
        return read or (self._read_owner(pid), self._read_text(pid, "cgroup"))

    def _read_owner(self, pid: int) -> int:
        return self._read(read_owner, pid)
