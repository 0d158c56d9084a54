"""Publishes world-readable files atomically, without fsync.

The folder may be writable for others: symbolic links are not followed (decision 88).
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
    """Replace a file, readable for everybody. Raises `OSError`.

    Its temporary name ends in ".new", which no collector reads. Removes those of killed writers.
    """
    fresh = f".{path.name}.{secrets.token_hex(4)}.new"
    with opened_folder(path.parent) as folder:
        # A killed writer leaves one file; many crashes must not fill the folder.
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
