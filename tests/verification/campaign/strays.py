"""Processes of containers that live where no engine keeps them, each in a control group of its own.

So is a process that outlives its container for Docker (containerd, dockerd and the shim were
killed), and so are those of runtimes that name control groups in another way. The forms are from
public reports: systemd's with colons (opentelemetry-java 4730, 4507), podman's, Kata's, CRI-O's.
The last one is understood by nobody, which does not make it the host's.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simulation.enclosure import cgroup_files
from tests.verification.campaign.clock import boot

FORMS = (
    "docker-{id}.scope",
    "system.slice:docker:{id}",
    "kubepods-pod1.slice:cri-containerd:{id}",
    "libpod-payload-{id}",
    "kata_{id}",
    "crio-conmon-{id}",
    "odd@{id}@place",
)
"""Names of the last part of a control group's path, by number."""

_ID = re.compile("[0-9a-f]{64}")
HIERARCHIES = ("unified", "pids", "systemd", "")


@dataclass(slots=True, kw_only=True)
class Stray:
    """A process of a container on a device. `ended`: when it was first known to be gone."""

    container: str
    uuid: str
    began: float
    process: subprocess.Popen[bytes]
    folder: Path
    ended: float | None = None


class Strays:
    """All of them. `cgroup`: the path below which they live, as the engine's containers do."""

    def __init__(self, cgroup: str) -> None:
        self._cgroup = cgroup.lstrip("/")
        self._all: list[Stray] = []
        self._lock = threading.Lock()

    def start(self, container: str, uuid: str, form: int) -> Stray:
        """Start a process of a container; it uses the device until it ends."""
        folder = self._folder() / FORMS[form % len(FORMS)].format(id=container)
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            "sh",
            "-c",
            'echo $$ >"$1/cgroup.procs" && exec sleep 3600',
            "stray",
            str(folder),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        while container not in Path(f"/proc/{process.pid}/cgroup").read_text(encoding="ascii"):
            if process.poll() is not None:
                raise OSError(f"no process can be put into {folder}")
        stray = Stray(container=container, uuid=uuid, began=boot(), process=process, folder=folder)
        with self._lock:
            self._all.append(stray)
        return stray

    def living(self, container: str, begin: float, end: float) -> Iterator[Stray]:
        """Those of a container that lived all the time between two moments."""
        self.tidy()
        with self._lock:
            known = [one for one in self._all if one.container == container]
        yield from (one for one in known if one.began <= begin and (one.ended or end) >= end)

    def tidy(self) -> None:
        """Note which of them have been ended, by whomever."""
        with self._lock:
            for stray in self._all:
                if stray.ended is None and stray.process.poll() is not None:
                    stray.ended = boot()

    def end(self) -> None:
        """End all that live."""
        with self._lock:
            living = [one for one in self._all if one.ended is None]
            for stray in living:  # before they end, so that none is thought to have lived longer
                stray.ended = boot()
        for stray in living:
            stray.process.kill()
            stray.process.wait(60)
            with suppress(OSError):
                stray.folder.rmdir()

    def end_lost(self, alive: Callable[[], Collection[str]]) -> None:
        """End what lives of containers that are not `alive` for the engine.

        It loses one that it was just starting when it was killed: created, it says for ever, and
        the process lives. ds01d rightly releases nothing of that; so an admin has to end it.
        """
        found: dict[int, str] = {}
        for file in cgroup_files(Path(self._cgroup), "cgroup.procs"):
            if _ID.fullmatch(file.parent.name):
                with suppress(OSError):  # its container ends just now
                    pids = file.read_text(encoding="ascii").split()
                    found |= dict.fromkeys(map(int, pids), file.parent.name)
        known = alive()  # asked second: what starts in between is alive
        for pid, container in found.items():
            if container not in known:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _folder(self) -> Path:
        tops = (Path("/sys/fs/cgroup", one) for one in HIERARCHIES)
        return next(top for top in tops if top.exists()) / self._cgroup
