"""Compiles the simulated `libnvidia-ml.so.1`, selects it for a process, and tells who has it open.

Which GPUs it shows is said in `world`; nothing here knows.
"""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from simulation.cache import cache, locked

NAME = "libnvidia-ml.so.1"
SOURCES = Path(__file__).parent
FLAGS = (
    *("-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"),
    *("-fPIC", "-shared", "-fvisibility=hidden", "-pthread"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Who called nvmlInit and not yet nvmlShutdown, over all processes that use one world file."""

    pids: tuple[int, ...]
    opened: int
    """How many sessions were ever opened."""
    peak: int
    """How many were open at once, at most."""


def build(directory: Path | None = None, *, process_lists: bool = True) -> Path:
    """Compile the library below `directory`, unless that is done, and return its folder.

    `process_lists=False` leaves out the symbols that list processes, as an older driver would.
    """
    directory = directory or cache("simulated-nvml")
    define = () if process_lists else ("-DWITHOUT_PROCESS_LISTS",)
    digest = hashlib.sha256(" ".join(FLAGS + define).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    folder = directory / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not (folder / NAME).exists():
            _compile(folder, define)
    return folder


def _compile(folder: Path, define: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        compiled = Path(work) / NAME
        files = [str(source) for source in sorted(SOURCES.glob("*.c"))]
        command = ["cc", *FLAGS, *define, f"-Wl,-soname,{NAME}", "-o", str(compiled), *files]
        subprocess.run(command, check=True, timeout=60)
        compiled.rename(folder / NAME)


def env(lib_dir: Path, world_file: Path) -> dict[str, str]:
    """Return what makes a process load the library from `lib_dir` and see `world_file`.

    It has to be set before the process starts: the loader reads LD_LIBRARY_PATH only then.
    """
    paths = [str(lib_dir), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": ":".join(paths), "DS01_SIM_NVML": str(world_file)}


def sessions(world_file: Path) -> Sessions:
    """Tell which living processes have NVML open on this world, and how many ever had."""
    try:
        with Path(f"{world_file}.sessions").open(encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            lines = file.read().splitlines()
    except FileNotFoundError:
        return Sessions(pids=(), opened=0, peak=0)
    if not lines:
        return Sessions(pids=(), opened=0, peak=0)
    _, opened, _, peak = lines[0].split()
    rows = (line.split() for line in lines[1:])
    alive = tuple(int(pid) for pid, start in rows if _start_of(int(pid)) == start)
    return Sessions(pids=alive, opened=int(opened), peak=int(peak))


def _start_of(pid: int) -> str | None:
    """When the process started, in clock ticks; None: it is gone, or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
