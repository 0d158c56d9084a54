"""Keeps the last known status of each host, for display.

One small file for each, of the user who asks, in $XDG_CACHE_HOME/ds01d/fleet, else in
~/.cache/ds01d/fleet. Whatever is wrong with it, it counts as empty: nothing is decided by it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from ds01d.adapters.files.safe_read import NotRead, open_file
from ds01d.adapters.fleet.status_format import encode_last_word, parse_last_word
from ds01d.errors import Ds01Error
from ds01d.folders import make_folder, opened_folder
from ds01d.model.fleet import HostName, LastWord

NOTHING_KNOWN: Final = LastWord(answered_at=None, unknown_since=None, status=None)
_MAX_BYTES: Final = 8 << 20
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def find_cache_folder(environ: Mapping[str, str]) -> Path:
    """Where this user's caches are (XDG Base Directory Specification); it may not exist."""
    base = environ.get("XDG_CACHE_HOME", "")
    # The specification ignores relative paths.
    if not os.path.isabs(base):  # noqa: PTH117 - of text
        # As ssh does, not by $HOME, which sudo may have left to somebody else.
        base = f"{pwd.getpwuid(os.geteuid()).pw_dir}/.cache"
    return Path(base) / "ds01d" / "fleet"


class LastWords:
    """The last known status of hosts, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: HostName) -> LastWord:
        """The last known status of a host; nothing where that cannot be read."""
        descriptor = open_file(self._folder / _file_name(name))
        if isinstance(descriptor, NotRead):
            return NOTHING_KNOWN
        with contextlib.suppress(OSError, Ds01Error), os.fdopen(descriptor, "rb") as opened:
            # A file of somebody else's could show anything.
            if os.fstat(descriptor).st_uid == os.geteuid():
                return parse_last_word(opened.read(_MAX_BYTES))
        return NOTHING_KNOWN

    def keep(self, words: Mapping[HostName, LastWord]) -> None:
        """Replace what is kept of these hosts; what cannot be written is left out."""
        with contextlib.suppress(OSError):
            make_folder(self._folder, 0o700)
            with opened_folder(self._folder) as folder:
                for name, word in words.items():
                    _replace_file(folder, _file_name(name), _encode_word(word))


def _encode_word(word: LastWord) -> bytes:
    data = encode_last_word(word)
    # What would not be read again takes with it since when the host is unknown.
    return data if len(data) <= _MAX_BYTES else encode_last_word(replace(word, status=None))


def _file_name(name: HostName) -> str:
    # Names of hosts are checked by the configuration: no slash, no leading dot.
    return f"{name}.json"


def _replace_file(folder: int, name: str, data: bytes) -> None:
    # O_EXCL: what is there by this name already is of a crash, or a trap, and is not written to.
    temporary = f".{name}.{os.getpid()}"
    descriptor = os.open(temporary, _WRITE, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
