"""The lines of a log that others write and rotate: those there are, and those that come.

Knows no format of a line. Reads rotated files too, also compressed ones; follows no symbolic link.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ds01d.adapters.books.rotated_logs import data_chunks, find_rotated, read_rotated
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, open_file
from ds01d.errors import Ds01Error

# What a hole reads as: after `copytruncate` a writer goes on at its old offset, and a crash may
# leave one behind half a line. Nobody writes NULs on purpose.
_HOLE = re.compile(rb"\0+")
_MAX_LINE_BYTES = 1 << 20
_MARK_BYTES = 64


class LogTail:
    """One log, read once from its oldest rotated file to its end, and from there on.

    `problems`: what could not be read of rotated files. A log that is missing is an empty one.
    """

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self._path = path
        self._descriptor: int | None = None
        self._offset = 0
        self._mark = b""
        self._rest = b""

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read_past(self) -> Iterator[str]:
        """Every line there is, oldest first. Raises `Ds01Error` if the log cannot be read."""
        self._open_log()
        for path in self._find_rotated():
            yield from self._read_rotated_lines(path)
        yield from self._read_growth()

    def read_unfinished(self) -> Iterator[str]:
        """What stands at the end and is no whole line yet, as one."""
        if self._rest:
            yield _decode_line(self._rest)
            self._rest = b""

    def read_new(self) -> Iterator[str]:
        """What was added since, whatever happened to the file meanwhile."""
        yield from self._read_growth()
        if self._is_another():
            yield from self._read_growth()  # Its writers may have had it open a little longer.
            yield from self.read_unfinished()
            self.close()
            self._open_log()
            yield from self._read_growth()

    def _open_log(self) -> None:
        if self._descriptor is None:
            opened = open_file(self._path)
            if isinstance(opened, NotRead):
                if opened.obstacle is not ReadFailure.MISSING:
                    raise Ds01Error(f"the operations log cannot be read: {opened.reason}")
                return
            self._descriptor = opened
            self._start_over()

    def _start_over(self) -> None:
        self._offset, self._mark, self._rest = 0, b"", b""

    def _is_another(self) -> bool:
        """Whether what has the log's name now is not what is open."""
        try:
            status = self._path.stat(follow_symlinks=False)
        except OSError:
            return False  # It is being rotated, or it is gone: then it may still grow.
        if self._descriptor is None:
            return True
        own_status = os.fstat(self._descriptor)
        return (own_status.st_dev, own_status.st_ino) != (status.st_dev, status.st_ino)

    def _read_growth(self) -> Iterator[str]:
        """The whole lines behind the last ones; from the start if the file was emptied."""
        if self._descriptor is None:
            return
        before = self._offset - len(self._mark)
        # A file that was emptied and has grown past the old offset looks like one that grew.
        if os.pread(self._descriptor, len(self._mark), before) != self._mark:
            self._start_over()
        for begin, chunk in data_chunks(self._descriptor, self._offset):
            # What stood before a hole is a line of its own, whatever follows it (decision 124).
            if begin > self._offset:
                self._mark = b""
                yield from self.read_unfinished()
            self._offset = begin + len(chunk)
            self._mark = (self._mark + chunk)[-_MARK_BYTES:]
            yield from self._split_lines(chunk)

    def _split_lines(self, chunk: bytes) -> Iterator[str]:
        *whole, self._rest = (self._rest + _HOLE.sub(b"\n", chunk)).split(b"\n")
        yield from map(_decode_line, whole)
        # A line without an end must not be collected for ever.
        if len(self._rest) > _MAX_LINE_BYTES:
            yield from self.read_unfinished()

    def _find_rotated(self) -> list[Path]:
        """The rotated files, oldest first."""
        ours = None if self._descriptor is None else os.fstat(self._descriptor).st_ino
        try:
            return find_rotated(self._path, skip_inode=ours)
        except Ds01Error as error:
            self.problems.append(str(error))
            return []

    def _read_rotated_lines(self, path: Path) -> Iterator[str]:
        descriptor = open_file(path)
        if isinstance(descriptor, NotRead):
            if descriptor.obstacle is not ReadFailure.MISSING:  # It has just been compressed.
                self.problems.append(descriptor.reason)
            return
        try:
            for chunk in read_rotated(descriptor, path):
                yield from self._split_lines(chunk)
        except Ds01Error as error:
            self.problems.append(str(error))
        yield from self.read_unfinished()


def _decode_line(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")
