"""Defers signals: they are recorded, and checked between the steps of the work."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ds01d.containers.context import Interrupt

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def defer_signals(
    interrupt: Interrupt, message: str, on_signal: Callable[[], None]
) -> Iterator[None]:
    """While this lasts the first signal is noted, and `on_signal` called in a thread of its own.

    In a thread, because the work that the signal came into may hold a lock that `on_signal` needs.
    `message` is the answer to every signal.
    """

    def handle_signal(number: int, _: FrameType | None) -> None:
        # The first one counts: impatient users press Ctrl-C again.
        if not interrupt.signal:
            interrupt.signal = number
            # In a thread: the interrupted code may hold the lock that `on_signal` needs.
            threading.Thread(target=on_signal, daemon=True).start()
        # Past Python's buffers, which are not to be entered twice.
        os.write(2, f"{message}\n".encode())

    previous = {number: signal.signal(number, handle_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
