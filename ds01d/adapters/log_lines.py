"""The lines of a log that others write and rotate: those there are, and those that come.

Knows no format of a line. Reads rotated files too, also compressed ones; follows no symbolic link.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from ds01d.adapters.ordinary_files import NotRead, Obstacle, open_file
from ds01d.errors import Ds01Error

# As logrotate names them: with a number, or with a date.
_ROTATED = re.compile(r"(?:\.[0-9]+|-[0-9]{8,14})(?:\.gz)?")
_CHUNK = 1 << 20
_LONGEST_LINE = 1 << 20
_MARK = 64


class LogLines:
    """One log, read once from its oldest rotated file to its end, and from there on.

    `troubles`: what could not be read of rotated files. A log that is missing is an empty one.
    """

    def __init__(self, path: Path) -> None:
        self.troubles: list[str] = []
        self._path = path
        self._descriptor: int | None = None
        self._offset = 0
        self._mark = b""
        self._rest = b""

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def past(self) -> Iterator[str]:
        """Every line there is, oldest first. Raises `Ds01Error` if the log cannot be read."""
        self._open()
        for path in self._rotated():
            yield from self._lines_of(path)
        yield from self._grown()

    def last(self) -> Iterator[str]:
        """What stands at the end and is no whole line yet, as one."""
        if self._rest:
            yield _text(self._rest)
            self._rest = b""

    def fresh(self) -> Iterator[str]:
        """What was added since, whatever happened to the file meanwhile."""
        yield from self._grown()
        if self._is_another():
            yield from self._grown()  # Its writers may have had it open a little longer.
            yield from self.last()
            self.close()
            self._open()
            yield from self._grown()

    def _open(self) -> None:
        if self._descriptor is None:
            found = open_file(self._path)
            if isinstance(found, NotRead):
                if found.obstacle is not Obstacle.MISSING:
                    raise Ds01Error(f"the operations log cannot be read: {found.reason}")
                return
            self._descriptor = found
            self._start_over()

    def _start_over(self) -> None:
        self._offset, self._mark, self._rest = 0, b"", b""

    def _is_another(self) -> bool:
        """Whether what has the log's name now is not what is open."""
        try:
            there = self._path.stat(follow_symlinks=False)
        except OSError:
            return False  # It is being rotated, or it is gone: then it may still grow.
        if self._descriptor is None:
            return True
        ours = os.fstat(self._descriptor)
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino)

    def _grown(self) -> Iterator[str]:
        """The whole lines behind the last ones; from the start if the file was emptied."""
        if self._descriptor is None:
            return
        before = self._offset - len(self._mark)
        if os.pread(self._descriptor, len(self._mark), before) != self._mark:
            self._start_over()
        while chunk := os.pread(self._descriptor, _CHUNK, self._offset):
            self._offset += len(chunk)
            self._mark = (self._mark + chunk)[-_MARK:]
            yield from self._cut(chunk)

    def _cut(self, chunk: bytes) -> Iterator[str]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        yield from map(_text, whole)
        if len(self._rest) > _LONGEST_LINE:
            yield from self.last()

    def _rotated(self) -> list[Path]:
        """The rotated files, oldest first."""
        ours = None if self._descriptor is None else os.fstat(self._descriptor).st_ino
        found: list[tuple[int, Path]] = []
        try:
            for entry in os.scandir(self._path.parent):
                name = self._path.name
                if entry.name.startswith(name) and _ROTATED.fullmatch(entry.name[len(name) :]):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_ino != ours:
                        found.append((status.st_mtime_ns, Path(entry.path)))
        except OSError as error:
            self.troubles.append(f"rotated logs cannot be found: {error}")
        return [path for _, path in sorted(found)]

    def _lines_of(self, path: Path) -> Iterator[str]:
        descriptor = open_file(path)
        if isinstance(descriptor, NotRead):
            if descriptor.obstacle is not Obstacle.MISSING:  # It has just been compressed.
                self.troubles.append(descriptor.reason)
            return
        plain = os.fdopen(descriptor, "rb")
        with gzip.open(plain) if path.suffix == ".gz" else plain as file, plain:
            try:
                while chunk := file.read(_CHUNK):
                    yield from self._cut(chunk)
            except (OSError, EOFError, zlib.error) as error:
                self.troubles.append(f"{path} cannot be read to its end: {error}")
        yield from self.last()


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")
