"""container-operations.log: one line for each attempt to change a container. Evidence, not books.

Reads only what was added since the last time, and keeps what distinguishes a container that is
being created from one that does not exist. Invalid lines are skipped. `operations_format` parses
and renders the lines.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ds01d.adapters.books.operations_format import format_line, parse_line
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, open_file
from ds01d.adapters.files.write_in_place import append_line
from ds01d.model.books import Attempt, LogLine
from ds01d.model.primitives import ContainerName, Source, Unknown

# Older lines do not matter for a creation that is still in progress.
_MAX_BYTES = 2 << 20
_MAX_NAMES = 10_000
_MARK_BYTES = 64
_HOLE = re.compile(rb"\0+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadPosition:
    """How far a file was read; `mark` is what stood right before, to notice another content."""

    inode: int
    offset: int
    mark: bytes


class LineListener(Protocol):
    """Gets every line of the log, by any writer."""

    def begin(self) -> None:
        """The log is read from its beginning: lines may come again."""

    def learn(self, line: LogLine) -> None:
        """The next line."""


class LineCopy(Protocol):
    """Where each line goes besides the file. Never waits for long, and never fails."""

    def send(self, lines: Iterable[tuple[LogLine, str]]) -> None:
        """Send lines: what each means, and its text as in the file."""

    def flush(self) -> bool:
        """Try again with what it has not taken; whether that is all."""

    def take_problem(self) -> str:
        """What went wrong since the last call; "" for nothing."""


class OperationsLog:
    """The log. One that was never there is an empty one."""

    def __init__(self, path: Path, *copies: LineCopy) -> None:
        self._listener: LineListener | None = None
        self._path = path
        self._copies = copies
        self._rotated_path = path.with_name(f"{path.name}.1")
        self._position: _ReadPosition | None = None
        self._attempts: OrderedDict[ContainerName, Attempt] = OrderedDict()

    def read(self) -> Mapping[ContainerName, Attempt] | Unknown:
        """The attempts that matter. Only what was added since the last call is parsed."""
        descriptor = open_file(self._path)
        if isinstance(descriptor, NotRead):
            if descriptor.obstacle not in {ReadFailure.MISSING, ReadFailure.NO_FOLDER}:
                return Unknown(source=Source.OPERATIONS, reason=descriptor.reason)
            # Between rename and create of a rotation there is no file for a moment.
            if self._position is None or self._was_rotated():
                self._start_over()  # else it was removed, and its content is still valid
            return dict(self._attempts)
        try:
            self._read_added(descriptor)
        except OSError as error:
            reason = f"{self._path} could not be read: {error.strerror}"
            return Unknown(source=Source.OPERATIONS, reason=reason)
        finally:
            os.close(descriptor)
        return dict(self._attempts)

    def follow(self, listener: LineListener) -> None:
        """Give `listener` every line that `read` comes across, in the order of the file."""
        self._listener = listener
        self._position = None  # so that it is read from the beginning

    def append(self, line: LogLine) -> None:
        """One line. Raises `WriteFailed`."""
        self.append_all((line,))

    def append_all(self, lines: Iterable[LogLine]) -> None:
        """Some lines, in one write, and to the copies. Raises `WriteFailed`: then to none."""
        # Formatted once: syslog gets the same line as the file.
        texts = [(line, format_line(line)) for line in lines]
        append_line(self._path, "\n".join(text for _, text in texts))
        for copy in self._copies:
            copy.send(texts)

    def flush(self) -> tuple[bool, tuple[str, ...]]:
        """Give the copies what they have not taken; whether that is all, and what went wrong."""
        done = [copy.flush() for copy in self._copies]
        return all(done), tuple(filter(None, (copy.take_problem() for copy in self._copies)))

    def _read_added(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        position = self._position
        if position is None or not _is_continuation(descriptor, status, position):
            self._start_over()
            position = _ReadPosition(inode=status.st_ino, offset=0, mark=b"")
        # After a long time away the newest part is enough (see `_MAX_BYTES`).
        start = max(position.offset, status.st_size - _MAX_BYTES)
        data = os.pread(descriptor, _MAX_BYTES, start)
        complete = data[: data.rfind(b"\n") + 1]  # The last line may still be growing.
        end = start + len(complete)
        self._parse_data(complete)
        length = min(end, _MARK_BYTES)
        mark = os.pread(descriptor, length, end - length)
        self._position = _ReadPosition(inode=status.st_ino, offset=end, mark=mark)

    def _start_over(self) -> None:
        """Drop everything and read the rotated file: its last lines may be seconds old."""
        self._position = None
        self._attempts.clear()
        if self._listener is not None:
            self._listener.begin()
        descriptor = open_file(self._rotated_path)
        if isinstance(descriptor, NotRead):
            return
        try:
            size = os.fstat(descriptor).st_size
            self._parse_data(os.pread(descriptor, _MAX_BYTES, max(0, size - _MAX_BYTES)))
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _was_rotated(self) -> bool:
        """Whether the rotated file is the one that was read."""
        descriptor = open_file(self._rotated_path)
        if isinstance(descriptor, NotRead):
            return False
        try:
            return (
                self._position is not None and os.fstat(descriptor).st_ino == self._position.inode
            )
        finally:
            os.close(descriptor)

    def _parse_data(self, data: bytes) -> None:
        for text in _split_lines(data):
            line = parse_line(text)
            if line is not None:
                self._record_attempt(line)
                if self._listener is not None:
                    self._listener.learn(line)

    def _record_attempt(self, line: LogLine) -> None:
        # decision 10: the order of the lines counts, not their times: clocks are set, files grow.
        name = ContainerName(line.container)
        attempt = self._attempts.get(name, Attempt())
        match line.operation, line.status:
            case "create_start", "pending":
                attempt = Attempt(started=line.at)
            case "create_failed", _:
                attempt = Attempt(failed=line.at)
            case "create_success", _:
                attempt = replace(attempt, started=None)
            case _:
                return
        self._attempts.pop(name, None)
        # Popped and set again: the order of the dict is the order of the last lines.
        if attempt != Attempt():
            self._attempts[name] = attempt
            if len(self._attempts) > _MAX_NAMES:
                self._attempts.popitem(last=False)


def _is_continuation(descriptor: int, status: os.stat_result, position: _ReadPosition) -> bool:
    """The file is the one that was read, grown; not a rotated, truncated or rewritten one."""
    if status.st_ino != position.inode or status.st_size < position.offset:
        return False
    length = len(position.mark)
    return os.pread(descriptor, length, position.offset - length) == position.mark


def _split_lines(data: bytes) -> list[str]:
    """Lines; a hole ends one: who writes on behind a truncation leaves it there, or a crash."""
    return _HOLE.sub(b"\n", data).decode(errors="replace").split("\n")
