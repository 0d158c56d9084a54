"""Stops a process at each call by which it changes a file, and lets others look at the disk.

What is on the disk then is what the process would leave behind if it was killed there. The library
`steps.c` has to be loaded before the process starts (`environment`). `Stepper` forks: the child
makes the change, the parent looks.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from simulation.cache import cache
from tests.support.preload import preloadable

SOURCE = Path(__file__).with_name("steps.c")
FLAGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")


def library() -> Path:
    """Compile the library, unless that is done."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    made = cache("steps") / f"steps-{digest}.so"
    if not made.exists():
        fresh = made.with_suffix(f".{os.getpid()}")
        options = [*FLAGS, "-fvisibility=hidden", "-o", str(fresh), str(SOURCE)]
        subprocess.run(["cc", *options, "-ldl", "-pthread"], check=True, timeout=60)
        fresh.rename(made)
    return made


def environment() -> Mapping[str, str]:
    """What a process needs whose children are to be stopped."""
    return os.environ | {"LD_PRELOAD": preloadable(library())}


class Call(NamedTuple):
    """One call that changes a file: its name and the paths."""

    name: str
    path: str
    other: str


class Step(NamedTuple):
    """Where the process stands: `before` a call, or with `half` of its bytes written."""

    moment: str
    call: Call


class Stepper:
    """Makes changes in children that stop."""

    def __init__(self) -> None:
        self._shim = ctypes.CDLL(None)
        if not hasattr(self._shim, "steps_arm"):
            raise RuntimeError("the library is not loaded: start this with `environment`")

    def steps(self, act: Callable[[], object]) -> Iterator[Step]:
        """Let a child do it to its end; it stands at each step until the next one is asked for.

        Raises:
            AssertionError: it did not come to its end.
        """
        read, to_parent = os.pipe()
        from_parent, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.close(write)
            self._live(act, to_parent, from_parent)
        os.close(to_parent)
        os.close(from_parent)
        status = None
        try:
            with os.fdopen(read, encoding="utf-8", errors="replace") as pipe:
                for line in pipe:
                    moment, *call = line.rstrip("\n").split("\t")
                    yield Step(moment, Call(*call))
                    os.write(write, b"\n")
            status = os.waitpid(pid, 0)[1]
        finally:
            os.close(write)
            if status is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if status != 0:
            raise AssertionError(f"it did not come to its end: {status}")

    def _live(self, act: Callable[[], object], out: int, back: int) -> None:
        try:
            self._shim.steps_arm(out, back)
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child may not go on as its parent
            traceback.print_exc()
            os._exit(1)
