"""The threads of the kernel, which are in no container.

A large host has thousands of them, and a release waits for the look at every process. All are
children of kthreadd (kernel/kthread.c), whose list is one file. So are the programs that the kernel
starts (kernel/umh.c), which are processes like others: each child is looked at once.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Final

from ds01d.adapters.host.process_entry import read_entry

_KTHREADD: Final = 2  # its pid, in the first PID namespace alone
_PF_KTHREAD: Final = 0x00200000  # include/linux/sched.h
_CHECKED_AT_ONCE: Final = 200
_READ: Final = os.O_RDONLY | os.O_CLOEXEC


class KernelThreads:
    """Those that were seen to be threads of the kernel, and still are children of kthreadd."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._threads: frozenset[str] = frozenset()
        self._has_kthreadd = False

    def list_pids(self) -> frozenset[str]:
        """Their pids, as /proc names them; none where that cannot be known."""
        try:
            # In another PID namespace that pid is of anybody, who may have children.
            self._has_kthreadd = self._has_kthreadd or self._is_kernel_thread(_KTHREADD)
            children = self._list_children() if self._has_kthreadd else frozenset[str]()
        except (OSError, ValueError, IndexError):
            children = frozenset()
        new = islice(children - self._threads, _CHECKED_AT_ONCE)
        added = {pid for pid in new if self._check_pid(pid)}
        self._threads = (self._threads & children) | added
        return self._threads

    def _list_children(self) -> frozenset[str]:
        descriptor = os.open(f"{self._proc}/{_KTHREADD}/task/{_KTHREADD}/children", _READ)
        parts = []
        try:
            while part := os.read(descriptor, 1 << 16):
                parts.append(part)
        finally:
            os.close(descriptor)
        return frozenset(b"".join(parts).decode("ascii").split())

    def _check_pid(self, pid: str) -> bool:
        try:
            return self._is_kernel_thread(int(pid))
        except (OSError, ValueError, IndexError):
            return False

    def _is_kernel_thread(self, pid: int) -> bool:
        return bool(read_entry(self._proc, pid).flags & _PF_KTHREAD)
