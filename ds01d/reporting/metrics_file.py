"""The file that node_exporter's textfile collector reads. Knows nothing of metrics.

Written in a thread of its own, whole or not at all. It goes when ds01d ends as it should: what
nobody keeps up to date would be read for ever.
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
    """Writes `path` again and again until `close`. `tell` hears why not, and "" when it does.

    Where `render` gives nothing the file stays as it is.
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
            content = self._render()
            if content:
                self._report_failure(_publish_or_explain(self._path, content))
            self._closed.wait(self._every_s)
        with contextlib.suppress(OSError):
            withdraw_file(self._path)


def _publish_or_explain(target: Path, content: bytes) -> str:
    """Put a whole file in its place, for everybody to read; "", or why that could not be done."""
    try:
        publish_file(target, content)
    except OSError as error:
        if error.errno == errno.EROFS:
            return f"{error}: the unit allows it with ReadWritePaths={target.parent} in a drop-in"
        return str(error)
    return ""
