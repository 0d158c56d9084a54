"""From a pid to the container, the user and the command behind it, read from /proc.

A process that is gone uses nothing any more and is left out; one that cannot be told is Unknown,
never "of the host". Nothing here asks the engine or signals a process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ds01d.model.facts import ContainerId, Source, Unknown

# A container's id in a cgroup path, as docker, podman, containerd, nerdctl and CRI-O write it, with
# the cgroupfs driver (/docker/ID) and the systemd driver (docker-ID.scope).
_ID = re.compile(
    r"(?:^|/)(?:(?:docker|libpod|cri-containerd|crio|nerdctl)-)?([0-9a-f]{64})(?:\.scope)?(?=/|$)"
)
_MOST_PARENTS = 256
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What is known of a process. `container` None: it is the host's."""

    container: ContainerId | Unknown | None
    user: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stat:
    """What tells a process from the next one with its pid (`started`), and where it comes from."""

    command: str
    parent: int
    started: int


class _Gone(Exception):
    """There is no process of that pid."""


class Processes:
    """Looks processes up. `known` says whether the engine lists a container of that id.

    `users` maps uids to names, as far as it can without making us wait.
    """

    def __init__(
        self,
        *,
        known: Callable[[ContainerId], bool] | None = None,
        users: Callable[[frozenset[int]], Mapping[int, str]] | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._known = known or (lambda _: False)
        self._users = users or (lambda _: {})
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
            if ids := _ids(self._read(pid, "cgroup")):
                return next(filter(self._known, ids), ids[0])
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
        return _Stat(command=command, parent=int(fields[1]), started=int(fields[19]))

    def _uid(self, pid: int) -> int | None:
        for line in self._read(pid, "status").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
        return None

    def _read(self, pid: int, name: str) -> str:
        """Read a small file of a process; half as dear as pathlib, and there are many."""
        try:
            file = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(file, 1 << 16).decode("utf-8", "replace")
            finally:
                os.close(file)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise _Gone from error


def _ids(cgroup: str) -> list[ContainerId]:
    """All container ids in a /proc/PID/cgroup, outermost first."""
    found: list[tuple[int, str]] = []
    # Of cgroup v1 there are a dozen lines, most with the same path.
    paths = dict.fromkeys(line.split(":", 2)[-1] for line in cgroup.splitlines())
    for path in paths:
        found += enumerate(match[1] for match in _ID.finditer(path.removesuffix(" (deleted)")))
    ordered: Iterator[str] = (text for _, text in sorted(found, key=lambda item: item[0]))
    return [ContainerId(text) for text in dict.fromkeys(ordered)]


def _printable(text: str) -> str:
    """The text with everything escaped that could move a cursor or break a line."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _unknown(reason: str) -> Unknown:
    return Unknown(source=Source.NVML, reason=reason)
