"""The processes of this host, by /proc."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def command_lines() -> Iterator[tuple[int, str]]:
    """The process ID and the words, joined by blanks, of every process that lives."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            words = (entry / "cmdline").read_bytes()
            yield int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")


def interrupt(process: subprocess.Popen[Any]) -> int:
    """Ctrl-C, again where nothing comes of it, as people do; its exit code.

    Python misses a signal that comes in the very moment in which it begins to wait, and dies of
    one that comes while it exits.
    """
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(30)
    raise AssertionError("Ctrl-C does not end it")
