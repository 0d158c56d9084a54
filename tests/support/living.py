"""Whether a process of this host lives."""

from __future__ import annotations

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether it is there and has not ended: no zombie, nor what becomes of one."""
    try:
        # Behind the name, which may have blanks and parentheses.
        rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
    except OSError:
        return False
    return rest.split()[0] not in {b"Z", b"X"}
