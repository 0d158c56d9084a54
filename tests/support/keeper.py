"""A process that ends what tests have started, once the process that ran them is gone.

Tests clear up after themselves. This is for those that cannot: killed, or out of memory. A daemon
under test is in a session of its own and would go on for ever. What tests start is known by a mark
in its environment. What `simulation` keeps has keepers of its own, which are left to their work.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "DS01D_TESTS"
SPARED = (b"simulation.enclosure", b"simulation.machine_keeper", b"tests.support.keeper")


@contextmanager
def keeper() -> Iterator[None]:
    """Have everything ended that is started from here on, when this ends or this process dies."""
    os.environ[MARK] = secrets.token_hex(8)
    with subprocess.Popen(
        (sys.executable, "-m", "tests.support.keeper"),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ):
        yield


def main() -> None:
    """Wait for the end of our input; then end what bears our mark."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    mark = f"{MARK}={os.environ[MARK]}".encode()
    deadline = time.monotonic() + 10
    while (left := list(_marked(mark))) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _marked(mark: bytes) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if not any(word in SPARED for word in words):
                    yield int(entry.name)


if __name__ == "__main__":
    main()
