"""Copies of broken files, kept so that nothing is thrown away unseen. Never overwrites one."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from ds01d.adapters.files.atomic_write import create_file, wrap_write_errors
from ds01d.adapters.files.safe_read import digest_of, read_bytes
from ds01d.errors import BooksChanged
from ds01d.folders import make_folder, opened_folder
from ds01d.model.primitives import Digest

_LIMIT = 64 << 20
_MAX_STEM_LENGTH = 200  # a file name has 255 bytes, and the time goes into it


def keep_copy(
    folder: Path, stem: str, data: bytes, *, newest: int = 20, newest_of_all: int | None = None
) -> Path:
    """Keep `data` as `<stem>-<UTC time>.json` and only the newest copies of that stem.

    `newest_of_all`: of all stems together, for a folder that holds nothing but copies. What is kept
    already, because an earlier attempt got no further, is not kept twice.
    """
    stem = stem[:_MAX_STEM_LENGTH]
    with wrap_write_errors(folder):
        make_folder(folder, 0o700)
        with opened_folder(folder) as descriptor:
            copies = _list_copies(descriptor, stem)
            # An attempt that got no further keeps the same bytes again in each pass.
            if copies and _read_copy(folder / copies[-1], len(data), descriptor) == data:
                return folder / copies[-1]
            copy = _write_copy(folder, stem, data, descriptor)
            for old in copies[: max(0, len(copies) + 1 - newest)]:
                with suppress(OSError):
                    os.unlink(old, dir_fd=descriptor)
            # Names come from records, so their number is not bounded by itself.
            if newest_of_all is not None:
                _keep_newest(descriptor, newest_of_all)
    return copy


def _keep_newest(folder: int, most: int) -> None:
    names = os.listdir(folder)
    if len(names) <= most:
        return
    with suppress(OSError):
        names.sort(key=lambda name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns)
        for old in names[:-most]:
            os.unlink(old, dir_fd=folder)


def find_copy(folder: Path, stem: str, digest: Digest) -> bytes | None:
    """The newest copy of that stem with these very bytes; None if there is none (any more)."""
    with suppress(OSError), opened_folder(folder) as descriptor:
        for name in reversed(_list_copies(descriptor, stem[:_MAX_STEM_LENGTH])):
            data = _read_copy(folder / name, _LIMIT, descriptor)
            if data is not None and digest_of(data) == digest:
                return data
    return None


def _list_copies(folder: int, stem: str) -> list[str]:
    """The names of the copies, the oldest first."""
    return sorted(name for name in os.listdir(folder) if name.startswith(f"{stem}-"))


def _read_copy(path: Path, limit: int, folder: int) -> bytes | None:
    data = read_bytes(path, limit, folder=folder)
    return data if isinstance(data, bytes) else None


def _write_copy(folder: Path, stem: str, data: bytes, descriptor: int) -> Path:
    time = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    for number in range(1000):
        copy = folder / f"{stem}-{time}{f'-{number}' if number else ''}.json"
        with suppress(BooksChanged):  # The clock was set back: that name is taken.
            create_file(copy, data, mode=0o600, folder=descriptor)
            return copy
    raise BooksChanged(f"{folder} takes no further copy of {stem}")
