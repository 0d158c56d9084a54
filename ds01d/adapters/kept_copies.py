"""Copies of broken files, kept so that nothing is thrown away unseen. Never overwrites one."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from ds01d.adapters.durable_files import create, writing
from ds01d.adapters.ordinary_files import digest_of, read_bytes
from ds01d.errors import BooksChanged
from ds01d.model.facts import Digest

_LIMIT = 64 << 20


def keep_copy(folder: Path, stem: str, data: bytes, *, newest: int = 20) -> Path:
    """Keep `data` as `<stem>-<UTC time>.json` and only the newest copies of that stem.

    What is kept already, because an earlier attempt got no further, is not kept twice.
    """
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        copies = sorted(path for path in folder.iterdir() if path.name.startswith(f"{stem}-"))
        if copies and read_bytes(copies[-1], len(data)) == data:
            return copies[-1]
        copy = _write(folder, stem, data)
        for old in copies[: max(0, len(copies) + 1 - newest)]:
            with suppress(OSError):
                old.unlink()
    return copy


def find_copy(folder: Path, stem: str, digest: Digest) -> bytes | None:
    """The newest copy of that stem with these very bytes; None if there is none (any more)."""
    with suppress(OSError):
        for path in sorted(folder.iterdir(), reverse=True):
            if path.name.startswith(f"{stem}-"):
                data = read_bytes(path, _LIMIT)
                if isinstance(data, bytes) and digest_of(data) == digest:
                    return data
    return None


def _write(folder: Path, stem: str, data: bytes) -> Path:
    time = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    for number in range(1000):
        copy = folder / f"{stem}-{time}{f'-{number}' if number else ''}.json"
        with suppress(BooksChanged):  # The clock was set back: that name is taken.
            create(copy, data, mode=0o600)
            return copy
    raise BooksChanged(f"{folder} takes no further copy of {stem}")
