"""The processes of this host, by /proc."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def command_lines() -> Iterator[tuple[int, str]]:
    """The process ID and the words, joined by blanks, of every process that lives."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            words = (entry / "cmdline").read_bytes()
            yield int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")
