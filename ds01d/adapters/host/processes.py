"""Processes and the containers they belong to, read from /proc.

From a pid to the container, the user and the command behind it, and from a container ID to a
process that lives in it. A process that /proc does not have is left out; one whose container cannot
be determined is Unknown, never "of the host". Nothing here asks the engine or signals a process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ds01d.adapters.host.cgroup_paths import IDS, find_container, is_of_another, without_users_own
from ds01d.model.primitives import ContainerId, Source, Unknown

_MOST_PARENTS = 256
_TRIES = 3
PID_MAX_LIMIT = 4 * 1024 * 1024
"""No kernel gives a larger pid (include/linux/threads.h)."""
_ELSEWHERE = (
    "Docker is in another PID namespace, and the processes of its containers cannot be seen from"
    " here: run ds01d in the host's (--pid=host)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What is known of a process. `container` None: it is the host's."""

    container: ContainerId | Unknown | None
    user: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stat:
    """What tells a process from the next one with its pid (`started`), and where it comes from.

    `state` is the kernel's letter; `threads` counts those that are left, the first included.
    """

    command: str
    state: str
    parent: int
    threads: int
    started: int


class _Gone(Exception):
    """There is no process of that pid."""


class Processes:
    """Looks processes up. `known` says whether the engine lists a container of that id.

    `users` maps uids to names, as far as it can without making us wait. `rootless`: its containers
    may lie below a user's own systemd. `elsewhere`: whether its processes are in a PID namespace
    that cannot be seen from here: then a pid may be of somebody else, and who is not seen may live.
    """

    def __init__(
        self,
        *,
        known: Callable[[ContainerId], bool] | None = None,
        users: Callable[[frozenset[int]], Mapping[int, str]] | None = None,
        rootless: bool = True,
        elsewhere: Callable[[], bool] = lambda: False,
        proc: Path = Path("/proc"),
    ) -> None:
        self._known = known or (lambda _: False)
        self._users = users or (lambda _: {})
        self._rootless = rootless
        self._elsewhere = elsewhere
        self._proc = proc

    @cached_property
    def hidepid_problem(self) -> str:
        """Why the processes of others cannot be seen; "" if they can. Looked at once."""
        try:
            self._read(1, "cgroup")
        except (_Gone, OSError):
            return (
                f"{self._proc} hides the processes of others, and a hidden process looks dead: "
                "be root with CAP_SYS_PTRACE, and without ProtectProc="
            )
        return ""

    def look_up(self, pids: Iterable[int]) -> Mapping[int, Process]:
        """Tell what is known of each process; one that is gone is missing."""
        if self._elsewhere():
            return {pid: Process(container=_unknown(_ELSEWHERE)) for pid in pids}
        found: dict[int, Process] = {}
        uids: dict[int, int] = {}
        for pid in pids:
            try:
                found[pid], uid = self._describe(pid)
            except _Gone:  # noqa: PERF203 - the few processes on GPUs
                if self.hidepid_problem:
                    found[pid] = Process(container=_unknown(self.hidepid_problem))
            except OSError as error:
                found[pid] = Process(container=_unknown(f"process {pid}: {error.strerror}"))
            except (ValueError, IndexError) as error:
                senseless = f"what {self._proc}/{pid} says makes no sense: {error}"
                found[pid] = Process(container=_unknown(senseless))
            else:
                if uid is not None:
                    uids[pid] = uid
        names = self._users(frozenset(uids.values())) if uids else {}
        for pid, uid in uids.items():
            found[pid] = replace(found[pid], user=_printable(names.get(uid, str(uid))))
        return found

    @property
    def pid_max(self) -> int:
        """The largest pid that the kernel gives now."""
        try:
            return int((self._proc / "sys/kernel/pid_max").read_text())
        except (OSError, ValueError):
            return PID_MAX_LIMIT

    def find_living(
        self, containers: frozenset[ContainerId]
    ) -> Mapping[ContainerId, int] | Unknown:
        """The pid of one living process for each of `containers` that has any.

        Whatever Docker says: a container whose ID stands in the cgroup path of a living process, in
        any form, is alive for the kernel; unless the process is of a container that the engine
        lists, made in a cgroup named after another. A zombie without other threads is dead. One
        look at every process of the host, 5 to 15 microseconds each.
        """
        if problem := _ELSEWHERE if self._elsewhere() else self.hidepid_problem:
            return _unknown(problem)
        wanted = {container.encode(): container for container in containers}
        found: dict[ContainerId, int] = {}
        try:
            # Twice as fast as with pathlib.
            names = os.listdir(self._proc)  # noqa: PTH208
            pids = [int(name) for name in names if name.isdecimal()]
            for pid in pids:
                cgroup = self._cgroup_of(pid)
                for text in wanted.keys() & set(IDS.findall(cgroup)):
                    one = wanted[text]
                    if one in found or self._is_of_another(cgroup, one):
                        continue
                    if self._lives(pid):
                        found[one] = pid
        except OSError as error:
            return _unknown(f"{self._proc} cannot be read: {error.strerror}")
        except (ValueError, IndexError) as error:
            return _unknown(f"invalid content in {self._proc}: {error}")
        return found

    def _cgroup_of(self, pid: int) -> bytes:
        """What names a process's containers; empty where it has ended."""
        try:
            cgroup = self._read_bytes(pid, "cgroup")
        except _Gone:
            return b""
        return cgroup if self._rootless else without_users_own(cgroup)

    def _is_of_another(self, cgroup: bytes, container: ContainerId) -> bool:
        return is_of_another(cgroup.decode("utf-8", "replace"), container, self._known)

    def _lives(self, pid: int) -> bool:
        try:
            stat = self._stat(pid)
        except _Gone:
            return False
        return stat.state not in "ZX" or stat.threads > 1

    def _describe(self, pid: int) -> tuple[Process, int | None]:
        """Describe a process, and give its uid."""
        for _ in range(_TRIES):
            before = self._stat(pid)
            try:
                container = self._container(pid, before)
            except _Gone:
                continue  # it ended, or a parent did: then it has another one now
            uid = self._uid(pid)
            if self._stat(pid).started == before.started:
                return Process(container=container, command=_printable(before.command)), uid
        return Process(container=_unknown(f"process {pid} and its parents kept changing")), None

    def _container(self, pid: int, stat: _Stat) -> ContainerId | Unknown | None:
        """Find its container, else that of the nearest parent that has one."""
        for _ in range(_MOST_PARENTS):
            if (found := find_container(self._read(pid, "cgroup"), self._known)) is not None:
                return found
            if stat.parent <= 0:
                return None
            pid, child = stat.parent, stat
            stat = self._stat(pid)
            if stat.started > child.started:
                raise _Gone  # the parent's pid is somebody else's by now
        return _unknown(f"process {pid} has more than {_MOST_PARENTS} parents")

    def _stat(self, pid: int) -> _Stat:
        # A command may hold spaces and parentheses.
        command, _, rest = self._read(pid, "stat").partition("(")[2].rpartition(")")
        fields = rest.split()
        return _Stat(
            command=command,
            state=fields[0],
            parent=int(fields[1]),
            threads=int(fields[17]),
            started=int(fields[19]),
        )

    def _uid(self, pid: int) -> int | None:
        for line in self._read(pid, "status").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
        return None

    def _read(self, pid: int, name: str) -> str:
        return self._read_bytes(pid, name).decode("utf-8", "replace")

    def _read_bytes(self, pid: int, name: str) -> bytes:
        """Read a small file of a process; half as dear as pathlib, and there are many."""
        try:
            file = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(file, 1 << 16)
            finally:
                os.close(file)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise _Gone from error


def _printable(text: str) -> str:
    """The text with everything escaped that could move a cursor or break a line."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _unknown(reason: str) -> Unknown:
    return Unknown(source=Source.NVML, reason=reason)
