"""Writes the file that node_exporter's textfile collector reads, atomically, in its own thread.

The file is removed when ds01d stops: the collector would export old values for ever.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ds01d.reporting.public_files import publish_file, withdraw_file

EVERY_S: Final = 15.0
_JOIN_S: Final = 1.0


class Textfile:
    """Writes `path` every `every_s` seconds until `close`; not while `render` gives b"".

    `report_failure` gets the reason of each failed write, "" for each other.
    """

    def __init__(
        self,
        path: Path,
        render: Callable[[], bytes],
        report_failure: Callable[[str], None],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._path, self._render, self._report_failure = path, render, report_failure
        self._every_s = every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ds01d-textfile", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write no more, and remove the file."""
        self._closed.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._closed.is_set():
            # Rendered in this thread: a slow disk or a full one delays no pass.
            content = self._render()
            if content:
                self._report_failure(_publish_or_explain(self._path, content))
            self._closed.wait(self._every_s)
        with contextlib.suppress(OSError):
            withdraw_file(self._path)


def _publish_or_explain(target: Path, content: bytes) -> str:
    """Replace the file; gives "" or the failure."""
    try:
        publish_file(target, content)
    except OSError as error:
        if error.errno == errno.EROFS:
            return f"{error}: the unit allows it with ReadWritePaths={target.parent} in a drop-in"
        return str(error)
    return ""
