"""The parent's hold on the NVML process: start it, ask it, end it, each within bounds.

It moves bytes and knows nothing of what they mean. It never starts a second process: who uses it
does, once `end` has returned True for the first one.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

COMMAND = (sys.executable, "-m", "ds01d.adapters.nvml.worker")

_LONGEST_ANSWER = 16 << 20
_REAP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """No answer, and why."""

    reason: str


class NvmlProcess:
    """One running NVML process. `environment` is a whole one; None: as ours is."""

    def __init__(
        self, *, command: Sequence[str] = COMMAND, environment: Mapping[str, str] | None = None
    ) -> None:
        # A session of its own: Ctrl-C in a terminal is for us, and we end it. From / it keeps no
        # file system busy. It ends by itself when we are gone, because its stdin ends then.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        assert self._process.stdout is not None  # noqa: S101
        self._requests = self._process.stdin.fileno()
        self._answers = self._process.stdout.fileno()
        # A process that reads nothing must not block the writer of a request.
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)

    def request_sample(
        self, *, timeout_s: float, stop: int, meanwhile: Callable[[], None] = lambda: None
    ) -> bytes | NoAnswer:
        """Ask for a sample and give the line that answers. `stop`, once readable, ends the wait.

        `meanwhile` is called once it is asked for, and must be quick.
        """
        deadline = time.monotonic() + timeout_s
        try:
            os.write(self._requests, b"sample\n")
        except OSError:
            return NoAnswer(reason=self._describe_end())
        meanwhile()
        waiting = select.poll()
        waiting.register(self._answers, select.POLLIN)
        waiting.register(stop, select.POLLIN)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            ready = dict(waiting.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if stop in ready:
                return NoAnswer(reason="ds01d is stopping")
            if not ready:
                return NoAnswer(reason=f"NVML timed out after {timeout_s:g} s")
            try:
                chunk = os.read(self._answers, 1 << 16)
            except BlockingIOError:
                continue
            if not chunk:
                return NoAnswer(reason=self._describe_end())
            answer += chunk
            if len(answer) > _LONGEST_ANSWER:
                return NoAnswer(reason="the NVML process answers without end")
        return bytes(answer)

    @property
    def has_ended(self) -> bool:
        """The process has ended and is reaped."""
        return self._process.poll() is not None

    def kill_process(self) -> bool:
        """Kill the process. False: it is still there, held by the kernel; ask `gone` later."""
        self._process.kill()
        try:
            self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return False
        self.close_pipes()
        return True

    def close_pipes(self) -> None:
        """Close our ends of the pipes."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _describe_end(self) -> str:
        """How the process ended."""
        try:
            status = self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return "the NVML process closed its output and went on"
        if status >= 0:
            return f"the NVML process ended with status {status} before it had answered"
        return f"the NVML process was ended by {_name_signal(-status)} before it had answered"


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
