"""Has the daemon sweep, by the signal that systemd's reload sends too.

SIGHUP ends a process that does not expect it, so it is sent to nothing but a ds01d: the process
that is looked at is the one that is signalled, whatever becomes of its number.
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
_AS_ROOT = "as root: systemctl reload ds01d, or ds01ctl reconcile"


def force_sweep(config: Config, now: Wall) -> str:
    """Ask for a sweep now; what came of it, in words. Never raises."""
    last, silent = read_published_status(config, now)
    if last is None or silent:
        return f"No sweep, there is no daemon: {silent}; ds01ctl reconcile makes a pass without one"
    try:
        process = os.pidfd_open(last.pid)
    except (OSError, OverflowError) as error:
        return f"No sweep: process {last.pid} cannot be signalled: {error}"
    try:
        if not _is_daemon(last.pid):
            return f"No sweep: process {last.pid} is not known to be ds01d; {_AS_ROOT}"
        signal.pidfd_send_signal(process, signal.SIGHUP)
    except PermissionError:
        return f"No sweep: you may not signal ds01d (process {last.pid}); {_AS_ROOT}"
    except OSError as error:
        return f"No sweep: process {last.pid} cannot be signalled: {error.strerror}"
    finally:
        os.close(process)
    return f"ds01d (process {last.pid}) was asked to sweep"


def _is_daemon(pid: int) -> bool:
    """Whether it runs ds01d: as a program, or as a file or module of Python's."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    words = [*line.decode(errors="replace").split("\0"), ""]
    if Path(words[0]).name.startswith("python"):
        options = takewhile(lambda word: word.startswith("-"), words[1:])
        words = words[1 + len(list(options)) :]
    return any(words[0] == name or words[0].endswith(f"/{name}") for name in _NAMES)
