"""Python programs in processes of their own: to be killed, to race, or to run as nobody.

And programs of the shell, in the place of others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program; whoever starts it also ends it."""
    return subprocess.Popen(
        [sys.executable, "-B", "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def output(program: str, *arguments: object) -> str:
    """Run a program to its end, which must be a good one, and give what it printed."""
    with start(program, *arguments) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return printed


def write_script(path: Path, text: str) -> Path:
    """Make a program that the shell runs."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


DIES_AT = '''
"""Run `act` in a child that is killed right before its n-th step that changes the disk."""
import os, signal

STEPS = ("write", "pwrite", "fchmod", "fchown", "ftruncate", "fsync", "link", "rename", "unlink")

def dies_at(number, act):
    """True if the child came to its end without being killed."""
    pid = os.fork()
    if pid == 0:
        left = number
        def dying(step):
            def call(*args, **kw):
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*args, **kw)
            return call
        for name in STEPS:
            setattr(os, name, dying(getattr(os, name)))
        act()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status == 0
'''

LEASES = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""
