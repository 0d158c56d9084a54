"""A pseudo-terminal: what a command draws for a person, and a person's Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tests.support.daemon import ROOT


def on_a_terminal(
    words: Sequence[str], env: Mapping[str, str] | None = None, *, ctrl_c_at: str = ""
) -> tuple[int, str]:
    """Run a module of ours there; gives its exit code and all that it drew.

    `ctrl_c_at`: interrupt it as soon as it has drawn this, and again after each ten seconds of
    silence: Python misses a signal that comes in the very moment in which it begins to wait, and
    dies of one that comes while it exits.
    """
    ours, theirs = pty.openpty()
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TZ") if key in os.environ}
    command = [sys.executable, "-m", *words]
    around = {**kept, "TERM": "xterm-256color", **(env or {})}
    drawn, interrupted = b"", False
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=around
    ) as running:
        os.close(theirs)
        try:
            while part := _read(ours, partial(running.send_signal, signal.SIGINT), interrupted):
                drawn += part
                if not interrupted and ctrl_c_at and ctrl_c_at.encode() in drawn:
                    running.send_signal(signal.SIGINT)
                    interrupted = True
        except BaseException:  # a test that takes too long must not wait for it on top
            running.kill()
            raise
    os.close(ours)
    return running.returncode, drawn.decode()


def _read(descriptor: int, act: Callable[[], object], repeats: bool) -> bytes:
    """What is drawn next, b"" at the end; `act` after ten seconds of silence if it `repeats`."""
    while repeats and not select.select([descriptor], [], [], 10.0)[0]:
        act()
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: the other side is closed
        return b""


def conversation(
    command: Sequence[str], answers: Sequence[tuple[str, str]], env: Mapping[str, str]
) -> tuple[int, str]:
    """Talk with a command on a terminal: each answer is typed once its cue is drawn, in order.

    Gives its exit code and all that was drawn. Ctrl-C and Ctrl-D are signs like any other; Ctrl-C
    is typed again if nothing comes of it, as people do: Python misses one that comes in the very
    moment in which it begins to read.
    """
    ours, theirs = pty.openpty()
    drawn, seen, left = b"", 0, list(answers)
    again = b"\x03" if answers and answers[-1][1] == "\x03" else b""
    # setsid makes it the terminal of the command, so that Ctrl-C typed into it is a signal.
    with subprocess.Popen(
        ["setsid", "--ctty", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**env, "TERM": "xterm-256color"},
    ) as running:
        os.close(theirs)
        try:
            while part := _read(ours, partial(os.write, ours, again), bool(again) and not left):
                drawn += part
                while left and (at := drawn.find(left[0][0].encode(), seen)) >= 0:
                    cue, answer = left.pop(0)
                    seen = at + len(cue.encode())
                    os.write(ours, answer.encode())
        except BaseException:
            sys.stderr.write(f"drawn so far: {drawn.decode()}, waiting for {left}\n")
            raise
        finally:
            os.close(ours)
            if left:  # it waits for an answer that will not come
                running.kill()
    return running.returncode, drawn.decode()


class TerminalSession:
    """A command on a pseudo-terminal of 30 rows and 90 columns."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(30, 90, None)
        self.modes = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.drawn = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            cwd=ROOT,
        )

    def resize(self, rows: int, columns: int, pid: int | None) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        if pid is not None:
            os.kill(pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def expect(self, text: str, within_s: float = 60.0, *, again: str = "") -> None:
        """Read until this was drawn, then forget what was drawn up to it.

        `again`: type this after ten seconds of silence (see `on_a_terminal`).
        """
        deadline = time.monotonic() + within_s
        while text.encode() not in self.drawn:
            assert time.monotonic() < deadline, (text, self.drawn)
            if select.select([self.ours], [], [], 10.0)[0]:
                self.drawn += os.read(self.ours, 65536)
            elif again:
                self.type(again)
        self.drawn = self.drawn.partition(text.encode())[2]

    def end(self) -> int:
        code = self.process.wait(60)
        while select.select([self.ours], [], [], 0)[0]:
            self.drawn += os.read(self.ours, 65536)
        assert termios.tcgetattr(self._theirs) == self.modes, "the terminal is not restored"
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for descriptor in (self.ours, self._theirs):
            os.close(descriptor)
