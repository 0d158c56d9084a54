"""ds01d as a process: how soon it is ready, what it takes of memory and processor.

Time on the processor is read from the process's own clock (nanoseconds, ended threads included),
which /proc/PID/stat only tells in hundredths of a second.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from bench.host import Host
from ds01d.reporting import status_file

ROOT: Final = Path(__file__).resolve().parent.parent
LIBRARIES: Final = (
    "apscheduler.schedulers.background",
    "apscheduler.triggers.cron",
    "docker",
    "msgspec.json",
    "structlog",
    "systemd.daemon",
    "systemd.journal",
    "yaml",
)
WORKER_LIBRARIES: Final = ("json", "pynvml", "signal", "threading")
_PATIENCE_S: Final = 120.0
_CPUCLOCK_SCHED: Final = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """To SIGHUP, in seconds: until its line was in the log, and until a new sweep was published."""

    heard_s: float
    swept_s: float


class Daemon:
    """A running ds01d on a host, as a context manager."""

    def __init__(self, host: Host, wrapper: Sequence[str] = ()) -> None:
        """Prepare it; `start` or `with` runs it. `wrapper`: a command that becomes it (exec)."""
        self.host, self._wrapper = host, wrapper
        self.ready_s = 0.0
        self._log = host.root / "ds01d.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Daemon":  # noqa: PYI034 - typing has no Self in Python 3.10
        """Start it and wait until it is ready."""
        with _notify_socket(self.host.root / "notify") as heard, self._log.open("ab") as log:
            began = time.monotonic()
            self._process = subprocess.Popen(
                [*self._wrapper, *command(), "--config", str(self.host.config)],
                cwd="/",
                env=os.environ
                | _read_unit_environment()
                | self.host.environment
                | {"NOTIFY_SOCKET": str(self.host.root / "notify"), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                self._wait_ready(heard)
            except BaseException:
                self._process.kill()
                self._process.wait()
                raise
            self.ready_s = time.monotonic() - began
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it as systemd would."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def worker(self) -> int:
        """The process in which NVML is asked."""
        for line in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii").split():
            return int(line)
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                return int(child)
        raise RuntimeError("there is no NVML process")

    def sweep(self) -> Answer:
        """Force a sweep by SIGHUP, and wait until it has been published.

        The file is read only when it is another: with ten thousand containers that takes 5 ms.
        """
        before, file = self.swept_at(), self._published()
        read, heard_s = self._log.stat().st_size, math.inf
        began = time.monotonic()
        os.kill(self.pid, signal.SIGHUP)
        while (now := self._published()) == file or self.swept_at() == before:
            file = now
            passed_s = time.monotonic() - began
            if passed_s > _PATIENCE_S:
                raise RuntimeError("it does not sweep")
            if heard_s == math.inf and b'"daemon.reload"' in self._log.read_bytes()[read:]:
                heard_s = passed_s
            time.sleep(0.01)
        swept_s = time.monotonic() - began
        return Answer(heard_s=min(heard_s, swept_s), swept_s=swept_s)

    def swept_at(self) -> float | None:
        try:
            shown = status_file.read_status(self.host.own)
        except FileNotFoundError:
            return None
        return None if shown.last_sweep is None else shown.last_sweep.at

    def _published(self) -> int:
        path = self.host.own / status_file.NAME
        return path.stat().st_mtime_ns if path.exists() else 0

    def open_drifts(self) -> int:
        """How many drifts the last sweep left."""
        return sum(one.count for one in status_file.read_status(self.host.own).drifts)

    def _wait_ready(self, heard: socket.socket) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                told = heard.recv(4096).decode(errors="replace").splitlines()
            except TimeoutError:
                continue
            if "READY=1" in told:
                return
        log = self._log.read_text("utf-8", errors="replace")
        raise RuntimeError(f"ds01d does not become ready:\n{log[-4000:]}")


def _read_unit_environment() -> dict[str, str]:
    """What the unit sets for it."""
    lines = (ROOT / "systemd" / "ds01d.service").read_text("utf-8").splitlines()
    settings = [line.removeprefix("Environment=") for line in lines]
    words = " ".join(new for new, line in zip(settings, lines, strict=True) if new != line)
    return dict(word.split("=", 1) for word in words.split())


def command() -> list[str]:
    """What runs ds01d in the foreground."""
    return [sys.executable, "-m", "ds01d.cli.daemon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory in bytes; `pss` counts shared pages by the share."""

    rss: int
    pss: int


def memory(pid: int) -> Memory:
    """The memory of a process."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    told = {row.split(":")[0]: int(row.split()[1]) * 1024 for row in rows}
    return Memory(rss=told["Rss"], pss=told["Pss"])


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system."""
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """A Python that imports libraries and does nothing: the floor of memory and of a start."""

    rss: int
    seconds: float
    idle: float


def bare(libraries: Sequence[str], idle_s: float) -> Bare:
    """Start one, and see what it takes; `idle` is its share of a core over `idle_s`."""
    text = f"import threading, {', '.join(libraries)}\n"
    text += "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    text += "print(flush=True)\ninput()\n"
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.monotonic() - began
        before = cpu_s(process.pid)
        time.sleep(idle_s)
        idle = (cpu_s(process.pid) - before) / idle_s if idle_s else 0.0
        found = Bare(rss=memory(process.pid).rss, seconds=seconds, idle=idle)
        process.kill()
    return found


@contextmanager
def _notify_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(0.5)
        try:
            yield heard
        finally:
            path.unlink()
