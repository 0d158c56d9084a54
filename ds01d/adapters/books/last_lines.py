"""The newest lines of the operations log, at a bounded cost however long it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from ds01d.adapters.books.operations_format import parse_line
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, open_file
from ds01d.errors import Ds01Error
from ds01d.model.books import LogLine

_MOST_BYTES: Final = 128 << 10


def read_last_lines(path: Path, most: int) -> Sequence[LogLine]:
    """The newest `most` lines that can be parsed, newest first; fewer where they are very long.

    Those of the log before a rotation count as well, unless it is compressed. A missing log is an
    empty one. Raises `Ds01Error` for one that cannot be read.
    """
    newest: list[LogLine] = []
    # As logrotate and every other program call the log of before.
    for file in (path, path.with_name(f"{path.name}.1")):
        if len(newest) < most:
            newest += _read_file(file, most - len(newest))
    return newest


def _read_file(path: Path, most: int) -> Sequence[LogLine]:
    opened = open_file(path)
    if isinstance(opened, NotRead):
        if opened.obstacle is ReadFailure.MISSING:
            return ()
        raise Ds01Error(f"the operations log cannot be read: {opened.reason}")
    try:
        size = os.fstat(opened).st_size
        start = max(0, size - _MOST_BYTES)
        data = os.pread(opened, _MOST_BYTES, start)
    except OSError as error:
        raise Ds01Error(f"the operations log cannot be read: {error}") from error
    finally:
        os.close(opened)
    rows = data.split(b"\n")
    # The first may be the end of a line, the last one that is still being written.
    rows = rows[1 if start else 0 : -1]
    lines = (parse_line(row.decode("utf-8", "replace")) for row in reversed(rows))
    return [*islice((line for line in lines if line is not None), most)]
