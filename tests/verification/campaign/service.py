"""ds01d as its unit has systemd run it: started again when it fails, watched by its watchdog.

The unit's times, scaled. What is done to it on purpose is told apart from a death of its own.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import ROOT

RESTART_S = 0.3
START_TIMEOUT_S = 60.0
WATCHDOG_S = 30.0
STOP_TIMEOUT_S = 8.0
WITHOUT = "-dac_override,-dac_read_search"
"""What its root may not do: read files that nobody may read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """One end of the process. `planned`: who ended it, "" if it did so itself."""

    at: float
    status: int
    planned: str


class Service:
    """A running service, as a context manager. Its threads end with it."""

    def __init__(self, folder: Path, config: Path, env: Mapping[str, str]) -> None:
        self.deaths: list[Death] = []
        self.starts = 0
        self.journal = folder / "journal.jsonl"
        self.gave_up = ""
        self._config = config
        self._env = dict(env)
        self._address = folder / "notify"
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._planned = ""
        self._wanted = True
        self._ready = False
        self._fed = 0.0
        self._closing = threading.Event()

    def __enter__(self) -> Service:  # noqa: PYI034 - typing has no Self in Python 3.10
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._address))
        self._socket.settimeout(0.1)
        self._start()
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._listen, self._keep)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(60)
        with self._lock:
            if self._process is not None:
                self._signal_group(signal.SIGKILL)
                self._process.wait(60)
        self._socket.close()

    # --- what people and faults do to it

    @property
    def ready(self) -> bool:
        """It runs, and has told that it is ready."""
        return self._ready

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def kill(self) -> None:
        """SIGKILL, with its NVML process; systemd starts it again."""
        with self._lock:
            if self.pid is not None:
                self._planned = "killed"
                self._signal_group(signal.SIGKILL)

    def restart(self) -> None:
        """`systemctl restart`."""
        with self._lock:
            if self.pid is not None:
                self._planned = "restarted"
                self._signal(signal.SIGTERM)

    def reload(self) -> None:
        self._signal(signal.SIGHUP)

    def stall(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def limit_files(self, free: int) -> None:
        """Leave it so many descriptors beside those that it has."""
        pid = self.pid
        with suppress(OSError):
            if pid is not None:
                used = max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir())
                self._limit_files(pid, used + 1 + free)

    def unlimit_files(self) -> None:
        pid = self.pid
        with suppress(OSError):
            if pid is not None:
                self._limit_files(pid, resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def tail(self, lines: int = 40) -> str:
        """The end of its journal."""
        text = self.journal.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    # --- systemd's part

    def _start(self) -> None:
        environment = {**self._env, "NOTIFY_SOCKET": str(self._address)}
        environment["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1e6))
        limits = ["setpriv", f"--bounding-set={WITHOUT}", f"--inh-caps={WITHOUT}"]
        command = [*limits, sys.executable, "-m", "ds01d.cli.daemon", "--config", str(self._config)]
        with self._lock, self.journal.open("ab") as journal:
            self._ready, self._fed = False, time.monotonic()
            self._planned = ""
            self.starts += 1
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=journal,
                start_new_session=True,
            )

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                text = self._socket.recv(4096).decode()
            except TimeoutError:
                continue
            lines = text.splitlines()
            if "READY=1" in lines:
                self._ready = True
            if {"READY=1", "WATCHDOG=1"} & set(lines):
                self._fed = time.monotonic()

    def _keep(self) -> None:
        while not self._closing.wait(0.05):
            process = self._process
            assert process is not None
            status = process.poll()
            if status is None:
                self._watch()
            elif not self.gave_up:
                self._bury(process, status)

    def _watch(self) -> None:
        patience = WATCHDOG_S if self._ready else START_TIMEOUT_S
        if time.monotonic() - self._fed > patience and not _stopped(self.pid):
            with self._lock:
                self._planned = ""
                self._fed = time.monotonic()
                self._signal_group(signal.SIGABRT)

    def _bury(self, process: subprocess.Popen[bytes], status: int) -> None:
        with self._lock:
            self._ready = False
            self._signal_group(signal.SIGKILL)  # what is left of its control group
            planned = self._planned
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            self.deaths.append(Death(at=now, status=status, planned=planned))
        if status == 0 and not planned:
            self.gave_up = "it ended by itself with status 0: Restart=on-failure leaves it at that"
            return
        if not self._closing.wait(RESTART_S):
            self._start()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock, suppress(ProcessLookupError):
            if self.pid is not None:
                os.kill(self.pid, number)

    def _signal_group(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    @staticmethod
    def _limit_files(pid: int, soft: int) -> None:
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, hard), hard))


def _stopped(pid: int | None) -> bool:
    """Whether a fault has stopped it, which then is no hanging of its own."""
    with suppress(OSError):
        return ") T " in Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return False
