"""The process behind a call of the service: who asked, by the kernel, and not by its word.

A client is started by a script: by it, by a fork of it (`$(…)`), by a shell for one line, by sudo.
The script is who asked; docker's wrapper becomes docker itself, and keeps its pid. Only reads
/proc, where anybody may name anything: what is found decides how long a reservation lasts, never
what somebody may do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ds01d.adapters.host.process_entry import ProcessEntry, read_entry, read_file, read_uid

_FORKED_WITHOUT_EXEC: Final = 0x40  # PF_FORKNOEXEC, include/linux/sched.h
_RUNNERS: Final = frozenset(
    {"sudo", "doas", "pkexec", "su", "runuser", "setpriv", "timeout", "flock", "time", "strace"}
)
"""Commands that only run another one, and end with it."""
_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"})
_MANAGERS: Final = frozenset({"systemd"})
"""Processes that adopt those whose parent has ended."""
_MOST_PARENTS: Final = 64


def find_asking_process(proc: Path, client: int, uid: int) -> ProcessEntry | None:
    """The process that had `client`, of user `uid`, ask; None where that is unknown.

    Raises `OSError` where one of them has ended meanwhile.
    """
    child, candidate = read_entry(proc, client), None
    is_for_another = False
    # Decision 230: who starts a session started it for somebody else: cron, sshd, systemd.
    if child.session == client:
        return None
    for _ in range(_MOST_PARENTS):
        if child.parent <= 1:
            break
        parent = read_entry(proc, child.parent)
        # No parent is younger than its child: it ended, and its pid was given away again.
        if parent.started > child.started:
            raise ProcessLookupError(f"process {child.parent} is another one by now")
        is_allowed = is_for_another or read_uid(proc, parent.pid) in (uid, 0)
        # Decision 230: a reservation does not last by somebody else's process, nor by one that
        # adopts all and never ends.
        if parent.command in _MANAGERS or not is_allowed:
            break
        candidate, is_runner = parent, parent.command in _RUNNERS
        is_for_another |= is_runner
        if not is_runner and (parent.session == parent.pid or not _is_part_of_parent(proc, parent)):
            break
        child = parent
    # It ends with the client, and who started it is not known.
    return None if candidate is not None and candidate.command in _RUNNERS else candidate


def _is_part_of_parent(proc: Path, entry: ProcessEntry) -> bool:
    """Whether it is a fork of a script, or a shell that a script has for one line."""
    if entry.flags & _FORKED_WITHOUT_EXEC:
        return True
    words = read_file(proc, entry.pid, "cmdline").decode("utf-8", "replace").split("\0")
    if words[0].lstrip("-").rpartition("/")[2] not in _SHELLS:
        return False
    for word in words[1:]:
        if not word.startswith("-") or word.startswith("--"):
            return False
        if "c" in word:
            return True
    return False
