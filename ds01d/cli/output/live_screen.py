"""A terminal's screen that is drawn again and again, as `watch` and `top` do; and its end.

The alternate screen, so that what stood there before comes back; typed characters are not echoed.
However it ends (q, Ctrl-C, SIGTERM, SIGHUP, an error) and while it is suspended (Ctrl-Z) the
terminal is as it was before.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Final, final

from ds01d.cli.output.streams import write_all

_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR = "\x1b[H", "\x1b[2J"
_END_LINE, _END_SCREEN = "\x1b[K", "\x1b[J"
_QUIT: Final = frozenset(b"qQ")


@final
class LiveScreen:
    """Draws on stdout while it is entered; reads keys from stdin where that is a terminal."""

    def __init__(self) -> None:
        self._output = sys.stdout.fileno()
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._modes: list[object] | None = None
        self._size = os.terminal_size((0, 0))
        self._awake, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}

    def __enter__(self) -> LiveScreen:
        handlers = {
            signal.SIGWINCH: self._note_resize,
            signal.SIGTSTP: self._suspend,
            signal.SIGTERM: _exit_on_signal,
            signal.SIGHUP: _exit_on_signal,
        }
        self._before = {number: signal.signal(number, by) for number, by in handlers.items()}
        try:
            self._take_terminal()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A second Ctrl-C in here would leave the terminal without an echo.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        # A terminal that is gone cannot be restored, and needs no restoring.
        with suppress(OSError, termios.error):
            self._give_back_terminal()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as signal gave it
        signal.signal(signal.SIGINT, interrupt)
        os.close(self._awake)
        os.close(self._wake)

    @property
    def size(self) -> os.terminal_size:
        return os.get_terminal_size(self._output)

    def draw(self, lines: Sequence[str]) -> None:
        """Draw lines from the top; what has no room below is counted on the last line."""
        size = self.size
        if len(lines) > size.lines:
            hidden = len(lines) - size.lines + 1
            lines = [*lines[: size.lines - 1], f"… {hidden} more lines"]
        # Only where the size has changed: a screen that is cleared each time flickers.
        start = _HOME if size == self._size else _CLEAR + _HOME
        self._size = size
        self._write(start + f"{_END_LINE}\r\n".join(lines) + _END_LINE + _END_SCREEN)

    def wait(self, seconds: float) -> bool:
        """Wait for so long, for a key or for another size; False to end it."""
        waited_for = [self._awake, *([] if self._input is None else [self._input])]
        ready, _, _ = select.select(waited_for, [], [], seconds)
        if self._awake in ready:
            with suppress(BlockingIOError):
                os.read(self._awake, 4096)
        if self._input is None or self._input not in ready:
            return True
        keys = os.read(self._input, 4096)
        return bool(keys) and _QUIT.isdisjoint(keys)  # no keys at all: the terminal is closed

    def _take_terminal(self) -> None:
        if self._input is not None:
            self._modes = termios.tcgetattr(self._input)
            silent = termios.tcgetattr(self._input)
            # Ctrl-C and Ctrl-Z stay signals.
            silent[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(self._input, termios.TCSADRAIN, silent)
        self._size = os.terminal_size((0, 0))
        self._write(_ENTER)

    def _give_back_terminal(self) -> None:
        self._write(_LEAVE)
        if self._input is not None and self._modes is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._modes)  # type: ignore[arg-type]

    def _write(self, text: str) -> None:
        write_all(self._output, text.encode(sys.stdout.encoding, "backslashreplace"))

    def _note_resize(self, _: int, __: FrameType | None) -> None:
        # The pipe ends the waiting; a full one will do that anyway.
        with suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    def _suspend(self, number: int, _: FrameType | None) -> None:
        self._give_back_terminal()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # stops here, until SIGCONT
        signal.signal(number, self._suspend)
        self._take_terminal()
        self._note_resize(number, None)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)  # as a shell has it of a process that the signal ended


def wait_for_reader(seconds: float) -> bool:
    """Wait for so long; False as soon as nobody reads stdout any more."""
    # Otherwise `--watch | head` would live on until the next change.
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not any(
        events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(seconds * 1000)
    )
