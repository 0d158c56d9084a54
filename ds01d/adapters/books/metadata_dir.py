"""container-metadata/: one small JSON file for each container, read and written one by one.

An invalid record affects no other. Every access goes through a descriptor of the folder and a name
that was checked, so nothing outside the folder is read, written or removed, whatever a file in it
is called or linked to. `metadata_format` parses the bytes.
"""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from ds01d.adapters.books.metadata_format import parse_record, read_container_name, render_record
from ds01d.adapters.files import atomic_write
from ds01d.adapters.files.atomic_write import TEMPORARY
from ds01d.adapters.files.backups import keep_copy
from ds01d.adapters.files.safe_read import (
    NotRead,
    ReadFailure,
    Signature,
    digest_of,
    open_file,
    read_unchanged,
    too_large,
)
from ds01d.errors import BooksChanged, Malformed, WriteFailed
from ds01d.folders import Folder, UntrustedFolder
from ds01d.logins import find_login
from ds01d.model.books import BadRecord, Record, is_recordable
from ds01d.model.primitives import ContainerName, Digest, Source, Unknown
from ds01d.text import make_printable

LIMIT = 256 << 10  # of one record, which takes some 200 bytes
MAX_RECORDS = 20_000

_SUFFIX = ".json"
_PAUSE_S = 0.0005
_PAUSES = 100  # for all torn records of one reading together; counted, since a look can be slow
_TRIES = 20
_MAX_COPIES = 200
_MAX_COPIES_IN_ALL = 2_000
_ENCODED = "base64:"  # of a file that is no UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedRecord:
    """A record as it was read; `racy`: a change of the file may leave the same signature."""

    signature: Signature
    racy: bool
    record: Record | BadRecord


class MetadataDirectory:
    """The folder of records. `keep_dir` takes copies of broken records that were replaced."""

    def __init__(self, path: Path, keep_dir: Path) -> None:
        self._path = path
        self._folder = Folder(path, service=keep_dir)
        self._keep_dir = keep_dir / "metadata-broken"
        self._cached: dict[str, _CachedRecord] = {}
        self._records: dict[ContainerName, Record | BadRecord] = {}  # of `_cached`, by name
        self._complete = False
        self._leftovers = False

    def read(
        self, names: frozenset[ContainerName] | None = None
    ) -> Mapping[ContainerName, Record | BadRecord] | Unknown:
        """Every record; files that did not change are not read again.

        With `names`, only those files are looked at, and the others are as they were last read.
        """
        try:
            with self._folder.to_read() as folder:
                if names is None or not self._complete:
                    return self._read_all(folder)
                return self._read_some(folder, names)
        except _TooManyFiles as many:
            return Unknown(source=Source.METADATA, reason=f"{self._path}: {many}")
        except OSError as error:
            fix = f"; {error.fix}" if isinstance(error, UntrustedFolder) else ""
            reason = f"{self._path} could not be read: {error.strerror or error}{fix}"
            return Unknown(source=Source.METADATA, reason=reason)

    def read_text(self, name: ContainerName) -> str | None:
        """The file as text that `restore_text` takes; None if there is no regular file."""
        if not _is_file_name(name):
            return None
        try:
            with self._folder.to_read() as folder:
                data = self._read_content(folder, name)
        except OSError:
            return None
        return None if isinstance(data, NotRead) else as_text(data)

    def render_record(self, record: Record, *, base: ContainerName | None = None) -> str:
        """What `write` would put into the file that is there now, as text.

        `base`: onto the record of that name instead, so that its unknown fields go along.
        """
        name = record.container if base is None or not _is_file_name(base) else base
        try:
            with self._folder.to_read() as folder:
                data = self._read_content(folder, name)
        except OSError:
            data = NotRead(obstacle=ReadFailure.FAILED, reason="")
        return as_text(render_record(None if isinstance(data, NotRead) else data, record, name))

    def restore_text(self, name: ContainerName, text: str | None, *, onto: Digest | None) -> None:
        """Make the file what `text` gave once; None removes it. `onto` as in `write`."""
        if text is not None:
            path = self._build_path(name)
            with self._open_to_change(path) as folder:
                self._replace_file(folder, path, name, as_bytes(text), onto)
        elif onto is not None:
            self.remove(name, onto=onto)

    def write(self, record: Record, *, onto: Digest | None) -> None:
        """Write one record and keep unknown fields; `onto`: digest of the file, None: no file yet.

        Raises `BooksChanged` if the file has another digest. A copy of a broken record is kept.
        """
        name = record.container
        path = self._build_path(name)
        if not is_recordable(name):
            raise WriteFailed(f"{self._path}: invalid container name {make_printable(name)}")
        with self._open_to_change(path) as folder:
            base = None if onto is None else self._read_expected(folder, name, onto)
            if base is not None and not _is_valid(base, name):
                keep_copy(
                    self._keep_dir, name, base, newest=_MAX_COPIES, newest_of_all=_MAX_COPIES_IN_ALL
                )
            self._replace_file(folder, path, name, render_record(base, record), onto)

    def remove(self, name: ContainerName, *, onto: Digest) -> None:
        """Remove one record. Raises `BooksChanged` if its digest is not `onto`."""
        path = self._build_path(name)
        with self._open_to_change(path) as folder:
            self._read_expected(folder, name, onto)
            os.unlink(path.name, dir_fd=folder)
            self._drop_cached(name)
            os.fsync(folder)

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed writers, if the last reading listed any."""
        if self._leftovers:
            with suppress(OSError, BooksChanged), self._folder.to_write() as folder:
                atomic_write.remove_abandoned(folder)

    # --- reading ------------------------------------------------------------------------------

    def _read_all(self, folder: int) -> dict[ContainerName, Record | BadRecord]:
        pauses = repeat(_PAUSE_S, _PAUSES)
        cached: dict[str, _CachedRecord] = {}
        files, self._leftovers = _list_files(folder)
        for file in files:
            entry = self._read_entry(folder, file, pauses)
            if entry is not None:
                cached[file] = entry
        self._cached, self._complete = cached, True
        self._records = {entry.record.container: entry.record for entry in cached.values()}
        return dict(self._records)

    def _read_some(
        self, folder: int, names: frozenset[ContainerName]
    ) -> dict[ContainerName, Record | BadRecord]:
        pauses = repeat(_PAUSE_S, _PAUSES)
        for name in filter(_is_file_name, names):
            entry = self._read_entry(folder, f"{name}{_SUFFIX}", pauses)
            if entry is None:
                self._drop_cached(name)
            else:
                self._cached[f"{name}{_SUFFIX}"] = entry
                self._records[name] = entry.record
        return dict(self._records)

    def _drop_cached(self, name: ContainerName) -> None:
        self._cached.pop(f"{name}{_SUFFIX}", None)
        self._records.pop(name, None)

    def _read_entry(self, folder: int, file: str, pauses: Iterator[float]) -> _CachedRecord | None:
        """One file; None if it does not exist any more."""
        try:
            status = os.stat(file, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        signature = Signature.of(status)
        before = self._cached.get(file)
        if before is not None and not before.racy and before.signature == signature:
            return before
        racy = signature.is_racy()
        name = ContainerName(file.removesuffix(_SUFFIX))
        record = self._read_record(folder, name, pauses) if _is_file_name(name) else None
        if not is_recordable(name) and not (
            isinstance(record, Record) and self._claims_name(folder, name)
        ):
            return _CachedRecord(signature=signature, racy=racy, record=self._make_misnamed(file))
        if record is None:
            return None
        # What could not be read may be readable next time, though the file is the same.
        unread = isinstance(record, BadRecord) and not record.replaceable
        return _CachedRecord(signature=signature, racy=racy or unread, record=record)

    def _read_record(
        self, folder: int, name: ContainerName, pauses: Iterator[float]
    ) -> Record | BadRecord | None:
        """One record; a broken one that may just be written is read again."""
        record = self._parse_file(folder, name)
        while (
            isinstance(record, BadRecord) and record.replaceable and self._is_recent(folder, name)
        ):
            pause_s = next(pauses, None)
            if pause_s is None:
                break
            time.sleep(pause_s)
            record = self._parse_file(folder, name)
        return record

    def _parse_file(self, folder: int, name: ContainerName) -> Record | BadRecord | None:
        data = self._read_content(folder, name)
        if isinstance(data, NotRead):
            if data.obstacle is ReadFailure.MISSING:
                return None
            return BadRecord(
                container=name, reason=data.reason, digest=Digest(""), replaceable=False
            )
        try:
            return parse_record(data, name)
        except Malformed as error:
            reason = f"{self._build_path(name)}: {error}"
            digest = digest_of(data)
            return BadRecord(container=name, reason=reason, digest=digest, replaceable=True)

    def _claims_name(self, folder: int, name: ContainerName) -> bool:
        """The file contains `name`, which is not a valid container name."""
        # decision 73: then a script wrote it together with a booking; else it is no record.
        data = self._read_content(folder, name)
        return isinstance(data, bytes) and read_container_name(data) == name

    def _make_misnamed(self, file: str) -> BadRecord:
        shown = make_printable(file)
        return BadRecord(
            container=ContainerName(shown.removesuffix(_SUFFIX)),
            reason=f"{self._path}/{shown}: invalid container name",
            digest=Digest(""),
            replaceable=False,
        )

    def _read_content(self, folder: int, name: ContainerName) -> bytes | NotRead:
        path = self._build_path(name)
        descriptor = open_file(path, folder=folder)
        if isinstance(descriptor, NotRead):
            return descriptor
        try:
            for _ in range(_TRIES):
                data = read_unchanged(descriptor, LIMIT + 1)
                if data is not None:
                    return too_large(path, LIMIT) if len(data) > LIMIT else data
                time.sleep(_PAUSE_S)
        except OSError as error:
            reason = f"{path} could not be read: {error.strerror}"
            return NotRead(obstacle=ReadFailure.FAILED, reason=reason)
        finally:
            os.close(descriptor)
        return NotRead(
            obstacle=ReadFailure.FAILED, reason=f"{path} keeps changing while it is read"
        )

    def _is_recent(self, folder: int, name: ContainerName) -> bool:
        try:
            status = os.stat(self._build_path(name).name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return Signature.of(status).is_racy()

    # --- writing ------------------------------------------------------------------------------

    def _replace_file(
        self, folder: int, path: Path, name: ContainerName, data: bytes, onto: Digest | None
    ) -> None:
        if onto is None:
            atomic_write.create_file(path, data, like=_find_sibling(folder), folder=folder)
        elif data != self._read_expected(folder, name, onto):
            atomic_write.replace_file(
                path, data, before=lambda: self._read_expected(folder, name, onto), folder=folder
            )

    @contextmanager
    def _open_to_change(self, path: Path) -> Iterator[int]:
        with atomic_write.wrap_write_errors(path), self._folder.to_write() as folder:
            if self._leftovers:
                atomic_write.remove_abandoned(folder)
            yield folder

    def _read_expected(self, folder: int, name: ContainerName, onto: Digest) -> bytes:
        data = self._read_content(folder, name)
        if isinstance(data, NotRead):
            raise BooksChanged(data.reason)
        if digest_of(data) != onto:
            raise BooksChanged(f"{self._build_path(name)} has changed since it was read")
        return data

    def _build_path(self, name: ContainerName) -> Path:
        if not _is_file_name(name):
            raise WriteFailed(f"{self._path}: invalid container name {make_printable(name)}")
        return self._path / f"{name}{_SUFFIX}"


class _TooManyFiles(Exception):
    """More files than can be read in time: who made them."""


def _list_files(folder: int) -> tuple[list[str], bool]:
    """The names of the records, and whether a writer that was killed has left something.

    Raises `_TooManyFiles`.
    """
    files: list[str] = []
    leftovers = False
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= MAX_RECORDS:
                owner = _owner_of_most(folder, files)
                problem = f"more than {MAX_RECORDS} files, most of them of {owner}"
                raise _TooManyFiles(f"{problem}; remove those that no container has")
            if entry.name.startswith(TEMPORARY):
                leftovers = True
            elif entry.name.endswith(_SUFFIX) and not entry.name.startswith("."):
                files.append(entry.name)
    return files, leftovers


def _owner_of_most(folder: int, files: list[str]) -> str:
    owners: Counter[int] = Counter()
    for name in files[:: max(1, len(files) // 1000)]:
        with suppress(OSError):
            owners[os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid] += 1
    return find_login(owners.most_common(1)[0][0]) if owners else "others"


def as_text(data: bytes) -> str:
    """Any bytes as text from which `as_bytes` makes them again."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = _ENCODED
    if text.startswith(_ENCODED):
        return _ENCODED + base64.b64encode(data).decode()
    return text


def as_bytes(text: str) -> bytes:
    if text.startswith(_ENCODED):
        return base64.b64decode(text.removeprefix(_ENCODED))
    return text.encode()


def _is_valid(data: bytes, name: ContainerName) -> bool:
    try:
        parse_record(data, name)
    except Malformed:
        return False
    return True


def _is_file_name(name: ContainerName) -> bool:
    """Whether `name` has a file of its own in the folder, and none of the hidden ones."""
    # Every name that the books have keeps its file, also one that no container can have.
    try:
        length = len(os.fsencode(f"{name}{_SUFFIX}"))
        name.encode()  # bytes that are no UTF-8 are no name that the books could have
    except UnicodeEncodeError:
        return False
    return bool(name) and length <= 255 and not name.startswith(".") and not {*"/\0"} & {*name}


def _find_sibling(folder: int) -> os.stat_result | None:
    """Some record that is there: a new one takes after it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False):
                return entry.stat(follow_symlinks=False)
    return None
