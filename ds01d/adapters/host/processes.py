"""Processes and the containers they belong to, read from /proc.

From a pid to the container, the user and the command behind it, and from a container ID to a
process that lives in it. A process that /proc does not have is left out; one whose container cannot
be determined is Unknown, never "of the host". Nothing here asks the engine or signals a process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from ds01d.adapters.host import cgroup_folders
from ds01d.adapters.host.cgroup_paths import (
    ID_LENGTH,
    IDS,
    find_container,
    is_of_another,
    without_users_own,
)
from ds01d.adapters.host.kernel_threads import KernelThreads
from ds01d.adapters.host.process_entry import (
    ProcessEntry,
    list_cgroups,
    read_entry,
    read_file,
    read_uid,
)
from ds01d.model.primitives import ContainerId, Source, Unknown
from ds01d.text import make_printable

T = TypeVar("T")

_MAX_PARENTS = 256
_FEW = 4
_ATTEMPTS = 3
PID_MAX_LIMIT = 4 * 1024 * 1024
"""No kernel gives a larger pid (include/linux/threads.h)."""
_HIDDEN_NAMESPACE = (
    "Docker is in another PID namespace, and the processes of its containers cannot be seen from"
    " here: run ds01d in the host's (--pid=host)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What is known of a process. `container` None: it is the host's."""

    container: ContainerId | Unknown | None
    user: str = ""
    command: str = ""


class ProcessGone(Exception):
    """There is no process of that pid."""


class ProcessDescription(NamedTuple):
    """A process as it was found; `started` is its identity."""

    started: int
    uid: int | None
    container: ContainerId | Unknown | None
    command: str


class Processes:
    """Looks processes up. `is_known`: the engine lists a container of that ID.

    `users` maps uids to names, as far as it can without making us wait. `rootless`: its containers
    may lie below a user's own systemd. `is_hidden`: whether its processes are in a PID namespace
    that cannot be seen from here: then a pid may be of somebody else, and who is not seen may live.
    """

    def __init__(
        self,
        *,
        is_known: Callable[[ContainerId], bool] | None = None,
        users: Callable[[frozenset[int]], Mapping[int, str]] | None = None,
        rootless: bool = True,
        is_hidden: Callable[[], bool] = lambda: False,
        proc: Path = Path("/proc"),
        cgroups: Path = cgroup_folders.ROOT,
    ) -> None:
        self._is_known = is_known or (lambda _: False)
        self._users = users or (lambda _: {})
        self._rootless = rootless
        self._is_hidden = is_hidden
        self._kernel_threads = KernelThreads(proc)
        self.proc = proc
        self._cgroups = cgroups

    @property
    def hiding_problem(self) -> str:
        """Why a process that is not seen may live all the same; "" if it cannot."""
        return _HIDDEN_NAMESPACE if self._is_hidden() else self.hidepid_problem

    @property
    def hidepid_problem(self) -> str:
        """Why the processes of others cannot be seen; "" if they can."""
        # Each time: after a remount of /proc all of them would look ended, and be released.
        try:
            self._read_text(1, "cgroup")
        except (ProcessGone, OSError):
            return (
                f"{self.proc} hides the processes of others, and a hidden process looks dead: "
                "be root with CAP_SYS_PTRACE, and without ProtectProc="
            )
        return ""

    def look_up(self, pids: Iterable[int]) -> Mapping[int, Process]:
        """The facts about each process; one that has ended is missing."""
        if self._is_hidden():
            return {pid: Process(container=_make_unknown(_HIDDEN_NAMESPACE)) for pid in pids}
        processes: dict[int, Process] = {}
        descriptions: dict[int, ProcessDescription] = {}
        for pid in pids:
            try:
                description = self._describe(pid)
            except ProcessGone:  # noqa: PERF203 - the few processes on GPUs
                if self.hidepid_problem:
                    processes[pid] = Process(container=_make_unknown(self.hidepid_problem))
            except OSError as error:
                processes[pid] = Process(
                    container=_make_unknown(f"process {pid}: {error.strerror}")
                )
            except (ValueError, IndexError) as error:
                problem = f"invalid content in {self.proc}/{pid}: {error}"
                processes[pid] = Process(container=_make_unknown(problem))
            else:
                descriptions[pid] = description
        # All at once: a directory service that hangs costs its time once.
        uids = frozenset(each.uid for each in descriptions.values() if each.uid is not None)
        names = self._users(uids) if uids else {}
        for pid, process in descriptions.items():
            user = "" if process.uid is None else names.get(process.uid, str(process.uid))
            processes[pid] = Process(
                container=process.container,
                user=make_printable(user),
                command=make_printable(process.command),
            )
        return processes

    @property
    def pid_max(self) -> int:
        """The largest pid that the kernel gives now."""
        try:
            return int((self.proc / "sys/kernel/pid_max").read_text())
        except (OSError, ValueError):
            return PID_MAX_LIMIT

    def find_living(
        self, containers: frozenset[ContainerId]
    ) -> Mapping[ContainerId, int] | Unknown:
        """The pid of one living process for each of `containers` that has any.

        Independent of Docker: a container whose ID stands in the cgroup path of a living process,
        in any form, is alive for the kernel; unless the process is of a container that the engine
        lists, made in a cgroup named after another. A zombie without other threads is dead. One
        look at every process of the host, 5 to 15 microseconds each; not at the kernel's threads.
        """
        if problem := self.hiding_problem:
            return _make_unknown(problem)
        by_text = {container.encode(): container for container in containers}
        # Of a release there is one, whose text is found faster than any ID is.
        texts = tuple(by_text) if len(by_text) <= _FEW else (b"",)  # which all have
        living: dict[ContainerId, int] = {}
        too_long: int | None = None
        try:
            for pid, whole in list_cgroups(self.proc, without=self._kernel_threads.list_pids()):
                if whole is None:
                    too_long = pid
                    continue
                # As of nearly all processes; without a call of Python for any of them.
                if len(whole) < ID_LENGTH or not any(map(whole.__contains__, texts)):
                    continue
                cgroup = whole if self._rootless else without_users_own(whole)
                # One regular expression for each process, whatever number of containers is looked
                # for.
                for text in by_text.keys() & set(IDS.findall(cgroup)):
                    container = by_text[text]
                    if container in living or self._is_of_another(cgroup, container):
                        continue
                    if self._is_alive(pid):
                        living[container] = pid
            # Decision 300: it may be of any of them, or of a user who stops all repairs with it.
            if too_long is not None:
                for container in self._find_populated(containers - living.keys()):
                    living[container] = too_long
        except OSError as error:
            return _make_unknown(f"{self.proc} cannot be read: {error.strerror}")
        except (ValueError, IndexError) as error:
            return _make_unknown(f"invalid content in {self.proc}: {error}")
        return living

    def _find_populated(self, containers: frozenset[ContainerId]) -> Iterable[ContainerId]:
        if self._rootless:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return cgroup_folders.find_populated(containers, self._cgroups)

    def _is_of_another(self, cgroup: bytes, container: ContainerId) -> bool:
        return is_of_another(cgroup.decode("utf-8", "replace"), container, self._is_known)

    def _is_alive(self, pid: int) -> bool:
        try:
            return not self._read_stat(pid).has_ended
        except ProcessGone:
            return False

    def _describe(self, pid: int) -> ProcessDescription:
        # Four reads are no snapshot: the pid may be another process's between two of them.
        for _ in range(_ATTEMPTS):
            before = self._read_stat(pid)
            try:
                container = self._find_container(pid, before)
            except ProcessGone:
                continue  # it ended, or a parent did: then it has another one now
            uid = self._read_uid(pid)
            # The same start time: all that was read is of the same process.
            if self._read_stat(pid).started == before.started:
                return ProcessDescription(before.started, uid, container, before.command)
        problem = _make_unknown(f"process {pid} and its parents kept changing")
        return ProcessDescription(started=-1, uid=None, container=problem, command="")

    def _find_container(self, pid: int, stat: ProcessEntry) -> ContainerId | Unknown | None:
        """Find its container, else that of the nearest parent that has one."""
        for _ in range(_MAX_PARENTS):
            if (
                container := find_container(self._read_text(pid, "cgroup"), self._is_known)
            ) is not None:
                return container
            # The parent lies outside our PID namespace, or this is init.
            if stat.parent <= 0:
                return None
            pid, child = stat.parent, stat
            stat = self._read_stat(pid)
            if stat.started > child.started:
                raise ProcessGone  # the parent's pid is somebody else's by now
        return _make_unknown(f"process {pid} has more than {_MAX_PARENTS} parents")

    def _read_stat(self, pid: int) -> ProcessEntry:
        return self._read(read_entry, pid)

    def _read_uid(self, pid: int) -> int | None:
        return self._read(read_uid, pid)

    def _read_text(self, pid: int, name: str) -> str:
        return self._read(partial(read_file, name=name), pid).decode("utf-8", "replace")

    def _read(self, read: Callable[[Path, int], T], pid: int) -> T:
        """What `read` finds. Raises `ProcessGone`, and `OSError` for one that may not be read."""
        try:
            return read(self.proc, pid)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGone from error


def _make_unknown(reason: str) -> Unknown:
    return Unknown(source=Source.NVML, reason=reason)
