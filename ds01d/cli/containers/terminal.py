"""Joins this process's terminal or pipes with the stream of a command in a container.

A terminal is restored however this ends, except by SIGKILL.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from ds01d.cli.output.streams import write_all
from ds01d.errors import Ds01Error, Interrupted
from ds01d.model.session import TerminalSize

RESIZE_EVERY_S: Final = 2.0  # half of the calls that the service allows are left for others
_RESIZE_TRIES: Final = 4
_RETRY_S: Final = 0.2
_CHUNK: Final = 1 << 16
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_HEADER_BYTES: Final = 8
Resize = Callable[[TerminalSize], None]


def has_terminal() -> bool:
    """Whether a command can have our terminal: only if it is both its input and its output."""
    return os.isatty(0) and os.isatty(1)


def read_size() -> TerminalSize:
    """The size of our terminal."""
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        columns = rows = 0
    return TerminalSize(rows=rows or 24, columns=columns or 80)


class Demultiplexer:
    """Takes Docker's frames of stdout and stderr apart, however their bytes arrive.

    A frame: its stream (1 or 2), three zeros, its length in four bytes, and its bytes.
    """

    def __init__(self) -> None:
        self._header = b""
        self._stream, self._left = 1, 0

    def split_frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Each part, with the descriptor that it is for."""
        while data:
            if not self._left:
                missing = _HEADER_BYTES - len(self._header)
                self._header, data = self._header + data[:missing], data[missing:]
                if len(self._header) < _HEADER_BYTES:
                    return
                self._stream = 2 if self._header[0] == 2 else 1
                self._left = int.from_bytes(self._header[4:], "big")
                self._header = b""
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            yield self._stream, part


class StreamSession:
    """One command's stream. `resize` None: it has pipes, whose stdout and stderr are frames."""

    def __init__(self, stream: socket.socket, resize: Resize | None) -> None:
        self._stream, self._resize = stream, resize
        self._wake_reader, self._wake_writer = os.pipe()
        # A signal handler must not wait, however many signals come before anybody reads.
        os.set_blocking(self._wake_writer, False)
        self._signal = 0
        self._is_over = False
        self._write_error: OSError | None = None
        self._size_changed = threading.Event()

    def copy_stream(self) -> None:
        """Copy until the stream ends.

        Raises `Interrupted` on a signal, and `OSError` where stdout takes no more.
        """
        self._stream.settimeout(None)
        with self._handle_signals(), _raw_terminal(enabled=self._resize is not None):
            # Each direction by itself: a command that stops reading may still have much to write.
            threading.Thread(target=self._copy_output, daemon=True).start()
            if self._resize is not None:
                self._size_changed.set()
                threading.Thread(target=self._send_sizes, args=(self._resize,), daemon=True).start()
            self._copy_input()
            with suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)
        if self._signal:
            name = signal.Signals(self._signal).name
            raise Interrupted(f"interrupted by {name}", signal=self._signal)
        if self._write_error is not None:
            raise self._write_error

    def _copy_input(self) -> None:
        """Send our input until the output has ended, or a signal came."""
        pending, is_open = b"", True
        while not (self._is_over or self._signal):
            poll = select.poll()
            poll.register(self._wake_reader, select.POLLIN)
            # No more input is taken before the last part is gone, so memory is bounded.
            if pending:
                poll.register(self._stream, select.POLLOUT)
            elif is_open:
                poll.register(0, select.POLLIN)
            ready = dict(poll.poll())
            if self._wake_reader in ready:
                os.read(self._wake_reader, _CHUNK)
            # A command that reads nothing delays neither a signal nor the end.
            with suppress(BlockingIOError):
                if 0 in ready:
                    pending = _read_input()
                    is_open = bool(pending)
                    if not is_open:
                        self._end_input()
                if pending:
                    pending = pending[self._send_input(pending) :]

    def _send_input(self, data: bytes) -> int:
        try:
            # By a flag: the socket has to stay blocking for the thread that reads it.
            return self._stream.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError:
            return len(data)  # nobody reads any more; the output ends, too

    def _end_input(self) -> None:
        if self._resize is not None:
            self._signal = self._signal or signal.SIGHUP  # a terminal has no end but this one
            return
        with suppress(OSError):
            self._stream.shutdown(socket.SHUT_WR)

    def _copy_output(self) -> None:
        try:
            copy_output(iter(self._receive_output, b""), has_frames=self._resize is None)
        except OSError as error:
            self._write_error = error
        self._is_over = True
        self._wake_input()

    def _receive_output(self) -> bytes:
        try:
            return self._stream.recv(_CHUNK)
        except OSError:
            return b""  # the engine is gone: the end, too

    def _send_sizes(self, resize: Resize) -> None:
        """Send the size of the terminal when it has changed, the newest only."""
        failures = 0
        while not self._is_over:
            self._size_changed.wait()
            self._size_changed.clear()
            try:
                resize(read_size())
                failures = 0
            except Ds01Error:  # the command is not started yet, or too many calls were made
                failures += 1
                if failures < _RESIZE_TRIES:
                    self._size_changed.set()
            time.sleep(_RETRY_S if failures == 1 else RESIZE_EVERY_S)

    @contextmanager
    def _handle_signals(self) -> Iterator[None]:
        def end_session(number: int, _: FrameType | None) -> None:
            self._signal = self._signal or number
            self._wake_input()

        def note_resize(number: int, _: FrameType | None) -> None:
            if number == signal.SIGCONT:  # the shell has set the terminal for itself meanwhile
                _set_raw()
            self._size_changed.set()

        handlers = dict.fromkeys(_ENDING, end_session)
        if self._resize is not None:
            handlers |= {signal.SIGWINCH: note_resize, signal.SIGCONT: note_resize}
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _wake_input(self) -> None:
        with suppress(OSError):
            os.write(self._wake_writer, b"\0")


def copy_output(chunks: Iterable[bytes], *, has_frames: bool) -> None:
    """Write what a container has written to stdout and stderr. Raises `OSError`."""
    frames = Demultiplexer()
    for data in chunks:
        for descriptor, part in frames.split_frames(data) if has_frames else ((1, data),):
            write_all(descriptor, part)


def _read_input() -> bytes:
    """What stdin has; b"" at its end."""
    try:
        return os.read(0, _CHUNK)
    except BlockingIOError:
        raise
    except OSError:  # EIO: the terminal is gone
        return b""


@contextmanager
def _raw_terminal(*, enabled: bool) -> Iterator[None]:
    if not enabled:
        yield
        return
    saved = termios.tcgetattr(0)
    try:
        _set_raw()
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(0, termios.TCSANOW, saved)


def _set_raw() -> None:
    with suppress(termios.error):
        # TCSANOW keeps what was typed ahead; tty's default, TCSAFLUSH, throws it away.
        tty.setraw(0, termios.TCSANOW)
