"""resource-limits.yaml and the files beside it, as bytes.

Each is opened in the folder of the configured path, wherever that leads; a name in it that is a
symbolic link is not followed. Knows nothing of what the files mean.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files.safe_read import (
    NotRead,
    ReadFailure,
    Signature,
    not_read,
    open_file,
    read_unchanged,
    too_large,
)
from ds01d.model.primitives import Source, Unknown

OVERRIDES: Final = "user-overrides.yaml"
ASSIGNMENTS: Final = "group-overrides.txt"
EXEMPTIONS: Final = "lifecycle-exemptions.yaml"
GROUPS: Final = "groups"
_MEMBERS: Final = ".members"
_ARCHIVED: Final = "archived.members"  # who has left, and no group

LIMIT: Final = 4 << 20
_MOST_GROUPS: Final = 200
_QUIET_S = 0.05
_ATTEMPTS = 30  # 0.3 s; not counted by a clock, since one look can be slow by itself
# O_NOFOLLOW: behind a link there could be files that others may write.
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Signatures = Mapping[str, Signature | None]
"""Of each file by its name, None where there is none: what changes when one changes."""


class FileContent(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a file; `is_public`: anybody may write it."""

    data: bytes
    modified_ns: int
    is_public: bool


Content = Mapping[str, FileContent]
"""The files that there are, by their names in the folder."""


class _Copy(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    files: dict[str, FileContent]


def encode_files(content: Content, path: Path) -> bytes:
    """Bytes for `decode_files`."""
    return msgspec.json.encode(_Copy(path=str(path), files=dict(content)))


def decode_files(data: bytes, path: Path) -> Content:
    """The files of the limits at `path`, as they were; none if the bytes are those of others."""
    try:
        copy = msgspec.json.decode(data, type=_Copy)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    # The configuration may name another file by now.
    return copy.files if copy.path == str(path) and path.name in copy.files else {}


class LimitsFolder:
    """The opened folder of the limits, and the one of the groups in it (None: there is none)."""

    def __init__(self, path: Path, folder: int, groups: int | None) -> None:
        self._path, self._folder, self._groups = path, folder, groups

    def sign(self) -> Signatures:
        """Raises `OSError`."""
        names = (self._path.name, OVERRIDES, ASSIGNMENTS, EXEMPTIONS)
        signatures = {name: _sign(name, self._folder) for name in names}
        if self._groups is not None:
            for name in _list_members(self._groups):
                signatures[f"{GROUPS}/{name}"] = _sign(name, self._groups)
        return signatures

    def read_files(self) -> Content | Unknown:
        """Every file that there is, by its name; Unknown where one of them cannot be read.

        Raises `OSError`.
        """
        content: dict[str, FileContent] = {}
        for name in (self._path.name, OVERRIDES, ASSIGNMENTS, EXEMPTIONS):
            file = _read_file(self._path.parent / name, self._folder)
            if isinstance(file, Unknown) and not (file.missing and name != self._path.name):
                return file
            if isinstance(file, FileContent):
                content[name] = file
        for name in () if self._groups is None else _list_members(self._groups):
            file = _read_file(self._path.parent / GROUPS / name, self._groups)
            if isinstance(file, Unknown):
                return file
            content[f"{GROUPS}/{name}"] = file
        return content


@contextmanager
def open_limits(path: Path) -> Iterator[LimitsFolder | Unknown]:
    """The folder of the limits at `path`; Unknown where it cannot be opened."""
    descriptors: list[int] = []
    try:
        yield _open_folder(path, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def find_group(name: str) -> str | None:
    """The group whose members a file lists, by its name; None for another file."""
    folder, _, file = name.partition("/")
    return file.removesuffix(_MEMBERS) if folder == GROUPS else None


def name_members(group: str) -> str:
    """The name of the file with the members of a group."""
    return f"{GROUPS}/{group}{_MEMBERS}"


def _open_folder(path: Path, descriptors: list[int]) -> LimitsFolder | Unknown:
    try:
        # Not for reading: a folder that may be entered need not be listed.
        descriptors.append(os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return _make_unknown(not_read(path, error))
    try:
        descriptors.append(os.open(GROUPS, _FOLDER, dir_fd=descriptors[0]))
    except FileNotFoundError:
        return LimitsFolder(path, descriptors[0], None)
    except OSError as error:
        groups = path.parent / GROUPS
        if error.errno == errno.ENOTDIR:
            reason = f"{groups} is not a directory"
            return Unknown(source=Source.LIMITS, reason=reason)
        return _make_unknown(not_read(groups, error))
    return LimitsFolder(path, descriptors[0], descriptors[1])


def _list_members(groups: int) -> list[str]:
    names = [name for name in os.listdir(groups) if name.endswith(_MEMBERS)]
    if len(names) > _MOST_GROUPS:  # a part of them would move users to another group
        raise OSError(errno.EMFILE, f"more than {_MOST_GROUPS} files in {GROUPS}")
    return sorted(name for name in names if name not in (_ARCHIVED, _MEMBERS))


def _sign(name: str, folder: int) -> Signature | None:
    try:
        return Signature.of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _read_file(path: Path, folder: int | None) -> FileContent | Unknown:
    descriptor = open_file(path, folder=folder)
    if isinstance(descriptor, NotRead):
        return _make_unknown(descriptor)
    try:
        data = _read_quiet(descriptor)
        if data is None:
            return Unknown(source=Source.LIMITS, reason=f"{path} is being written")
        if len(data) > LIMIT:
            return _make_unknown(too_large(path, LIMIT))
        status = os.fstat(descriptor)
    except OSError as error:
        return _make_unknown(not_read(path, error))
    finally:
        os.close(descriptor)
    is_public = bool(status.st_mode & stat.S_IWOTH)
    return FileContent(data=data, modified_ns=status.st_mtime_ns, is_public=is_public)


def _make_unknown(failure: NotRead) -> Unknown:
    missing = failure.obstacle in {ReadFailure.MISSING, ReadFailure.NO_FOLDER}
    return Unknown(source=Source.LIMITS, reason=failure.reason, missing=missing)


def _read_quiet(descriptor: int) -> bytes | None:
    """Read when nobody has written for a moment: half a YAML file is valid, and names fewer users.

    None if that moment does not come.
    """
    for _ in range(_ATTEMPTS):
        # An editor writes in pieces, and each piece by itself is valid YAML.
        if not Signature.of(os.fstat(descriptor)).is_racy(_QUIET_S):
            return read_unchanged(descriptor, LIMIT + 1)
        time.sleep(_QUIET_S / 5)
    return None
