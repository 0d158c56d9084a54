"""Signals as a note that work looks at between its steps, and not as the end of the program."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ds01d.containers.create import Interrupt

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def defer_signals(interrupt: Interrupt, says: str, at_once: Callable[[], None]) -> Iterator[None]:
    """While this lasts the first signal is noted, and `at_once` called in a thread of its own.

    In a thread, because the work that the signal came into may hold a lock that `at_once` needs.
    `says` is the answer to every signal.
    """

    def hear(number: int, _: FrameType | None) -> None:
        if not interrupt.signal:
            interrupt.signal = number
            threading.Thread(target=at_once, daemon=True).start()
        # Past Python's buffers, which are not to be entered twice.
        os.write(2, f"{says}\n".encode())

    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
