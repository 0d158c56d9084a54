"""One process in /proc: the content of its `stat`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ds01d.adapters.host.clocks import to_signed_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """A process. Its identity is `started` (clock ticks since boot): a pid is used again.

    `state` is the kernel's letter; `threads` counts those that are left, the first included.
    """

    pid: int
    command: str
    state: str
    parent: int
    session: int
    flags: int
    threads: int
    started: int

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs. The first thread may end while others still hold the GPU."""
        return self.state in "ZX" and self.threads <= 1


def read_entry(proc: Path, pid: int) -> ProcessEntry:
    """Raises `OSError` where there is none, `ValueError` or `IndexError` for another format."""
    text = read_file(proc, pid, "stat").decode("utf-8", "replace")
    # A command may hold spaces and parentheses.
    command, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return ProcessEntry(
        pid=pid,
        command=command,
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        flags=int(fields[6]),
        threads=int(fields[17]),
        started=to_signed_ticks(int(fields[19])),
    )


def read_file(proc: Path, pid: int, name: str) -> bytes:
    """Read a small file of a process; half as dear as pathlib, and there are many."""
    descriptor = os.open(f"{proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
