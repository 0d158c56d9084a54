"""Kills a process at each call by which it changes a file.

The library `dies.c` has to be loaded before the process starts (`environment`). `Victim` forks:
the child counts its calls and truly dies (SIGKILL) at one of them; the parent lives.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from simulation.cache import cache
from tests.support.preload import preloadable

SOURCE = Path(__file__).with_name("dies.c")
FLAGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")

BEFORE, AFTER, HALF = b"b", b"a", b"h"


def library() -> Path:
    """Compile the library, unless that is done."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    made = cache("dies") / f"dies-{digest}.so"
    if not made.exists():
        fresh = made.with_suffix(f".{os.getpid()}")
        command = ["cc", *FLAGS, "-fvisibility=hidden", "-o", str(fresh), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        fresh.rename(made)
    return made


def environment() -> Mapping[str, str]:
    """What a process needs whose children are to be killed."""
    return os.environ | {"LD_PRELOAD": preloadable(library())}


class Call(NamedTuple):
    """One call that changes a file: its name and the paths."""

    name: str
    path: str
    other: str


class Victim:
    """Runs deeds in children that die."""

    def __init__(self) -> None:
        self._shim = ctypes.CDLL(None)
        if not hasattr(self._shim, "dies_arm"):
            raise RuntimeError("the library is not loaded: start this with `environment`")

    def calls(self, act: Callable[[], object]) -> list[Call]:
        """Let a child do it to its end; every call that changed a file."""
        status, calls = self._fork(act, 0, BEFORE)
        if status != 0:
            raise AssertionError(f"it did not come to its end: {status}")
        return calls

    def dies(self, act: Callable[[], object], at: int, when: bytes) -> list[Call] | None:
        """Let a child do it and die at its n-th call; what it did instead if it never got there."""
        status, calls = self._fork(act, at, when)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return None
        return calls

    def _fork(self, act: Callable[[], object], at: int, when: bytes) -> tuple[int, list[Call]]:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._shim.dies_log(write)
            self._live(act, at, when)
        os.close(write)
        with os.fdopen(read, encoding="utf-8", errors="replace") as pipe:
            told = pipe.read()
        status = os.waitpid(pid, 0)[1]
        return status, [Call(*line.split("\t")) for line in told.splitlines()]

    def _live(self, act: Callable[[], object], at: int, when: bytes) -> None:
        try:
            self._shim.dies_arm(ctypes.c_long(at), ctypes.c_char(when))
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child may not go on as its parent
            traceback.print_exc()
            os._exit(1)
