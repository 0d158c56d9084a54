"""How programs that start daemons, engines and machines end when they are told to."""

from __future__ import annotations

import signal
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def own_signals() -> None:
    """Let the usual ways to end a program end it by an exception, so that it clears up."""
    for number in ENDING:
        signal.signal(number, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it


def deaf() -> None:
    """Hear no more signals: what is left to do is to clear up, and it takes a second."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
