"""The file that node_exporter's textfile collector reads. Knows nothing of metrics.

Written in a thread of its own, whole or not at all. It goes when ds01d ends as it should: what
nobody keeps up to date would be read for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

EVERY_S: Final = 15.0
_JOIN_S: Final = 1.0
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Textfile:
    """Writes `path` again and again until `close`. `tell` hears why not, and "" when it does.

    Where `render` gives nothing the file stays as it is.
    """

    def __init__(
        self,
        path: Path,
        render: Callable[[], bytes],
        tell: Callable[[str], None],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._path, self._render, self._tell = path, render, tell
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
                self._tell(_replace(self._path, content))
            self._closed.wait(self._every_s)
        with contextlib.suppress(OSError):
            self._path.unlink()


def _replace(target: Path, content: bytes) -> str:
    """Put a whole file in its place, for everybody to read; "", or why that could not be done.

    Not durable. Its name until then is none that the collector reads.
    """
    fresh = target.with_name(f"{target.name}.new")
    try:
        fresh.unlink(missing_ok=True)  # of a process that was killed
        with os.fdopen(os.open(fresh, _FLAGS, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask
            file.write(content)
        fresh.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        if error.errno == errno.EROFS:
            return f"{error}: the unit allows it with ReadWritePaths={target.parent} in a drop-in"
        return str(error)
    return ""
