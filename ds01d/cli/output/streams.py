"""Whether a stream is a screen, and how commands write past Python's buffers."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import TextIO


def is_screen(stream: TextIO) -> bool:
    """Whether it is a terminal on which lines can be drawn again."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb"}


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however long that takes. Raises `OSError`."""
    while data:
        # It may be non-blocking: another process that shares it may have made it so.
        select.select((), (descriptor,), ())
        with suppress(BlockingIOError):
            data = data[os.write(descriptor, data) :]
