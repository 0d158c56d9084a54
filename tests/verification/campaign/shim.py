"""The shim that is preloaded into ds01d: compiles it, and says what it does from now on."""

from __future__ import annotations

import hashlib
import mmap
import struct
import subprocess
import tempfile
from pathlib import Path

from simulation.cache import cache
from tests.support.preload import preloadable

SOURCE = Path(__file__).with_name("shim.c")
FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
_FORMAT = "=qqq"


class Shim:
    """One process's wall clock and disk; also of those that it starts."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._values = [0, 0, 0]
        control.write_bytes(struct.pack(_FORMAT, *self._values))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), struct.calcsize(_FORMAT))

    @property
    def env(self) -> dict[str, str]:
        """What selects it, for a process that is about to start."""
        return {"LD_PRELOAD": preloadable(build()), "DS01_SHIM": str(self._control)}

    @property
    def clock_s(self) -> int:
        """By how much the wall clock is ahead of the host's."""
        return self._values[0]

    def step_clock(self, ahead_s: int) -> None:
        self._set(0, ahead_s)

    def slow_disk(self, *, sync_ms: int = 0, rename_ms: int = 0) -> None:
        self._set(1, sync_ms)
        self._set(2, rename_ms)

    def _set(self, at: int, value: int) -> None:
        self._values[at] = value
        self._map[:] = struct.pack(_FORMAT, *self._values)


def build() -> Path:
    """Compile the library, unless that is done, and return it."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    target = cache("campaign-shim") / f"shim-{digest}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            compiled = Path(work) / target.name
            subprocess.run(
                ["cc", *FLAGS, "-o", str(compiled), str(SOURCE), "-ldl"], check=True, timeout=60
            )
            compiled.rename(target)
    return target
