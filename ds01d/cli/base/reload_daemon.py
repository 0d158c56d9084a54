"""Asks the daemon for a sweep, with the signal that `systemctl reload` sends.

SIGHUP kills a process that does not handle it, so it goes only to a process that runs ds01d. A
pidfd makes sure that the process checked is the process signalled, even if its PID is reused.
"""

from __future__ import annotations

import os
import signal
from itertools import takewhile
from pathlib import Path

from ds01d.config import Config
from ds01d.model.primitives import Wall
from ds01d.reporting.published_status import read_published_status

_NAMES = ("ds01d", "ds01d.cli.daemon", "ds01d/cli/daemon.py")
_AS_ROOT = "fix: as root, systemctl reload ds01d or ds01ctl reconcile"


def force_sweep(config: Config, now: Wall) -> str:
    """Ask for a sweep now and describe the result. Never raises."""
    last, daemon_problem = read_published_status(config, now)
    if last is None or daemon_problem:
        return f"no sweep: ds01d is not running ({daemon_problem}); fix: ds01ctl reconcile"
    try:
        # Opened before the check: the PID may be reused between check and signal.
        process = os.pidfd_open(last.pid)
    except (OSError, OverflowError) as error:
        return f"no sweep: cannot signal process {last.pid}: {error}"
    try:
        # The status may be a day old, and its pid another program's by now.
        if not _is_daemon(last.pid):
            return f"no sweep: process {last.pid} may not be ds01d; {_AS_ROOT}"
        signal.pidfd_send_signal(process, signal.SIGHUP)
    except PermissionError:
        return f"no sweep: not permitted to signal ds01d (process {last.pid}); {_AS_ROOT}"
    except OSError as error:
        return f"no sweep: cannot signal process {last.pid}: {error.strerror}"
    finally:
        os.close(process)
    return f"requested a sweep from ds01d (process {last.pid})"


def _is_daemon(pid: int) -> bool:
    """Whether the process runs ds01d: as a program, or as a Python file or module."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    words = [*line.decode(errors="replace").split("\0"), ""]
    if Path(words[0]).name.startswith("python"):
        # `python -m` and `python FILE`, with options of Python's before them.
        options = takewhile(lambda word: word.startswith("-"), words[1:])
        words = words[1 + len(list(options)) :]
    return any(words[0] == name or words[0].endswith(f"/{name}") for name in _NAMES)
