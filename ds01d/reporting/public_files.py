"""Files that are published for everybody: whole or not at all, not durable.

In a folder that others may be able to write to: no link is followed, no name is trusted.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from ds01d.folders import opened_folder

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def publish_file(path: Path, content: bytes) -> None:
    """Put a whole file in its place, for everybody to read. Raises `OSError`.

    Its name until then ends in ".new", which no collector reads; those of writers that were killed
    are removed.
    """
    fresh = f".{path.name}.{secrets.token_hex(4)}.new"
    with opened_folder(path.parent) as folder:
        _remove_leftovers(folder, path.name)
        try:
            with os.fdopen(os.open(fresh, _FLAGS, 0o644, dir_fd=folder), "wb") as file:
                os.fchmod(file.fileno(), 0o644)  # whatever the umask
                file.write(content)
            os.rename(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh, dir_fd=folder)
            raise


def withdraw_file(path: Path) -> None:
    """Remove a published file, if it is there. Raises `OSError`."""
    with opened_folder(path.parent) as folder, suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=folder)


def _remove_leftovers(folder: int, name: str) -> None:
    for other in os.listdir(folder):
        if other == f"{name}.new" or (other.startswith(f".{name}.") and other.endswith(".new")):
            with suppress(OSError):
                os.unlink(other, dir_fd=folder)
