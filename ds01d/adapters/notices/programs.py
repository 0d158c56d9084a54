"""Runs a program for a notice: bounded in time, and with nothing of it left behind."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from ds01d.errors import DeliveryFailed
from ds01d.text import make_printable

TIMEOUT_S: Final = 10.0
_TERM_S: Final = 1.0
_MAX_OUTPUT: Final = 500  # bytes of stderr that a message shows
_MAX_ROUNDS: Final = 100
_PR_SET_CHILD_SUBREAPER: Final = 36
# One program at a time: whatever else is a child then, it has left behind.
_running: Final = threading.Lock()


def adopt_orphans() -> None:
    """From now on a process that outlives its parent becomes our child, so that it can be ended."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_program(
    argv: Sequence[str],
    environ: Mapping[str, str],
    data: bytes = b"",
    *,
    timeout_s: float = TIMEOUT_S,
    ends_children: bool,
) -> tuple[int, str]:
    """Run it with `data` as its input; its exit status, and its stderr.

    `ends_children`: also what it has started and did not wait for. Raises `DeliveryFailed` if it
    cannot be started or does not end in time.
    """
    with _running:
        try:
            # Incomplete, it would take what others run for what this one leaves behind.
            before = _list_children()
            # A session of its own: no terminal, and a group that can be ended as a whole.
            process = subprocess.Popen(
                [*argv],
                stdin=subprocess.PIPE if data else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env={**environ},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DeliveryFailed(f"cannot run {make_printable(argv[0])}: {reason}") from error
        try:
            output = _attend(process, data, time.monotonic() + timeout_s)
            is_late = process.poll() is None
        finally:
            if process.poll() is None or ends_children:
                _end_group(process)
            # Bounded: one that has become another user's cannot be killed.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_TERM_S)
            for pipe in filter(None, (process.stdin, process.stderr)):
                with suppress(OSError):
                    pipe.close()
            if ends_children:
                with suppress(OSError):  # no descriptor is left: they end with ds01d-notify
                    _end_strays(before)
        if is_late:
            name = make_printable(argv[0])
            raise DeliveryFailed(
                f"{name} did not end within {timeout_s:g} s and was killed{output}"
            )
        return process.returncode, output


def _attend(process: subprocess.Popen[bytes], data: bytes, until: float) -> str:
    """Feed and read it until it ends or time is up; not until its pipes do, which others keep."""
    output, rest = bytearray(), memoryview(data)
    with selectors.DefaultSelector() as selector:
        for pipe, events in (
            (process.stdin, selectors.EVENT_WRITE),
            (process.stderr, selectors.EVENT_READ),
        ):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, events)
        while time.monotonic() < until:
            is_ended = process.poll() is not None
            # Its end is looked for ten times a second, and what it wrote before is still read.
            ready = selector.select(0.0 if is_ended else min(0.1, until - time.monotonic()))
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    rest = _feed(process.stdin, rest)
                    if not rest:
                        selector.unregister(process.stdin)
                        with suppress(OSError):
                            process.stdin.close()
                elif not _drain(key.fd, output):
                    selector.unregister(key.fileobj)
            if is_ended and not any(key.fileobj is process.stderr for key, _ in ready):
                break
            if is_ended and len(output) >= _MAX_OUTPUT:
                break
            if not selector.get_map() and not is_ended:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(min(0.1, max(0.0, until - time.monotonic())))
    text = make_printable(bytes(output[:_MAX_OUTPUT]).decode("utf-8", "replace").strip())
    return f": {text}" if text else ""


def _feed(pipe: IO[bytes] | None, rest: memoryview) -> memoryview:
    if pipe is None:
        return memoryview(b"")
    try:
        return rest[os.write(pipe.fileno(), rest[:4096]) :]
    except BlockingIOError:
        return rest
    except OSError:  # it reads no more: its exit status shows whether that is right
        return memoryview(b"")


def _drain(descriptor: int, output: bytearray) -> bool:
    """Read some of it, and keep the beginning; False at the end."""
    try:
        part = os.read(descriptor, 65536)
    except BlockingIOError:
        return True
    except OSError:
        return False
    output += part[: max(0, _MAX_OUTPUT - len(output))]
    return bool(part)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_TERM_S)
        os.killpg(process.pid, signal.SIGKILL)


def _end_strays(before: frozenset[int]) -> None:
    """End what has left the group: adopted by us, they are our children, until none is left."""
    for _ in range(_MAX_ROUNDS):
        strays = _list_children() - before
        if not strays:
            return
        for pid in strays:
            with suppress(ProcessLookupError, PermissionError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _list_children() -> frozenset[int]:
    """The children of this process, of each of its threads; none where the kernel does not say.

    Raises `OSError`.
    """
    children: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            children.update(map(int, task.read_bytes().split()))
    return frozenset(children)
