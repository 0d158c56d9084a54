"""Streams and time zone of every command, at its start and at its end.

A command whose output cannot be written has failed: stdout may be a full disk, a broken pipe, or
closed. Python by itself would end with a traceback, or with exit code 120 from its last flush.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TextIO


def prepare_streams() -> None:
    """Make all three standard streams exist, and local times those of this host."""
    _open_missing_streams()
    use_host_zone()


def use_host_zone() -> None:
    """Let "local" mean /etc/localtime in this process, whatever TZ its caller has exported."""
    if os.environ.pop("TZ", None) is not None:
        time.tzset()


def flush_streams() -> bool:
    """Write out what is left, so that nothing is left for Python's end; whether stdout took it."""
    complete = True
    # Both: a test or a caller may have replaced one of them.
    for stream in {sys.stdout, sys.__stdout__} - {None}:
        complete = _flush_stream(stream) and complete
    for stream in {sys.stderr, sys.__stderr__} - {None}:
        _flush_stream(stream)
    return complete


def _open_missing_streams() -> None:
    """Open what the caller closed, so that no file of ours takes its number.

    As gnulib's stdopen does: what is written to a closed stdout fails, as it should, and a closed
    stderr is nobody's loss. Lowest number first, since a new descriptor takes the lowest.
    """
    # In ascending order, since open(2) returns the lowest free descriptor.
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        if not _is_open(number):
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = _open_stream(1)
    if sys.stderr is None:
        sys.stderr = _open_stream(2)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_stream(number: int) -> TextIO:
    # Not closed with the object: the number must stay taken to the end.
    return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _flush_stream(stream: TextIO | None) -> bool:
    """Flush a stream; what it does not take is thrown away."""
    if stream is None or stream.closed:
        return True
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # a test's stream has no descriptor
            # Point the descriptor at /dev/null, or Python flushes the rest again at exit and fails.
            _discard_output(stream.fileno())
            stream.flush()
        return False
    return True


def _discard_output(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
