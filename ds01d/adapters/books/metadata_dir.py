"""container-metadata/: one small JSON file for each container, read and written one by one.

An invalid record affects no other. Every access goes through a descriptor of the folder and a name
that was checked, so nothing outside the folder is read, written or removed, whatever a file in it
is called or linked to. `metadata_listing` finds which files are records, `metadata_reader` reads
them, `metadata_format` parses the bytes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ds01d.adapters.books.metadata_format import parse_record, render_record
from ds01d.adapters.books.metadata_listing import TooManyFiles, is_file_name
from ds01d.adapters.books.metadata_reader import MetadataReader
from ds01d.adapters.files import atomic_write, syncs
from ds01d.adapters.files.backups import keep_copy
from ds01d.adapters.files.permissions import is_private
from ds01d.adapters.files.safe_read import (
    NotRead,
    ReadFailure,
    digest_of,
)
from ds01d.errors import BooksChanged, Malformed, WriteFailed
from ds01d.folders import Folder, UntrustedFolder
from ds01d.model.books import BadRecord, Record, is_recordable
from ds01d.model.primitives import ContainerName, Digest, Source, Unknown
from ds01d.text import make_printable

# For each name and in all: a writer that breaks records again and again fills no disk.
_MAX_COPIES = 200
_MAX_COPIES_IN_ALL = 2_000
_ENCODED = "base64:"  # of a file that is no UTF-8


class MetadataDirectory:
    """The folder of records. `keep_dir` takes copies of broken records that were replaced.

    `is_shared`: others may write in it, too.
    """

    def __init__(self, path: Path, keep_dir: Path, *, is_shared: bool = True) -> None:
        self._path, self._is_shared = path, is_shared
        self._folder = Folder(path, service=keep_dir)
        self._keep_dir = keep_dir / "metadata-broken"
        self._reader = MetadataReader(path)

    def read(
        self, names: frozenset[ContainerName] | None = None
    ) -> Mapping[ContainerName, Record | BadRecord] | Unknown:
        """Every record; files that did not change are not read again.

        With `names`, only those files are looked at, and the others are as they were last read.
        """
        try:
            with self._folder.to_read() as folder:
                return self._reader.read_records(folder, names)
        except TooManyFiles as many:
            return Unknown(source=Source.METADATA, reason=f"{self._path}: {many}")
        except OSError as error:
            fix = f"; {error.fix}" if isinstance(error, UntrustedFolder) else ""
            reason = f"{self._path} could not be read: {error.strerror or error}{fix}"
            return Unknown(source=Source.METADATA, reason=reason)

    def is_current(self) -> bool:
        """Whether what was read last is still so, by this process and by the folder itself.

        Records that others write in place do not show there; so never where others may write.
        """
        if self._is_shared:
            return False
        try:
            with self._folder.to_read() as folder:
                # As of decision 212: taking it over may have failed.
                return is_private(folder, 0o755) and self._reader.is_current(folder)
        except OSError:
            return False

    def read_text(self, name: ContainerName) -> str | None:
        """The file as text that `restore_text` takes; None if there is no regular file."""
        if not is_file_name(name):
            return None
        try:
            with self._folder.to_read() as folder:
                data = self._reader.read_content(folder, name)
        except OSError:
            return None
        return None if isinstance(data, NotRead) else as_text(data)

    def render_record(self, record: Record, *, base: ContainerName | None = None) -> str:
        """What `write` would put into the file that is there now, as text.

        `base`: onto the record of that name instead, so that its unknown fields go along.
        """
        name = record.container if base is None or not is_file_name(base) else base
        try:
            with self._folder.to_read() as folder:
                data = self._reader.read_content(folder, name)
        except OSError:
            data = NotRead(obstacle=ReadFailure.FAILED, reason="")
        return as_text(render_record(None if isinstance(data, NotRead) else data, record, name))

    def restore_text(self, name: ContainerName, text: str | None, *, onto: Digest | None) -> None:
        """Make the file what `text` gave once; None removes it. `onto` as in `write`."""
        if text is not None:
            path = self._reader.build_path(name)
            with self._open_to_change(path, name) as folder:
                self._replace_file(folder, path, name, as_bytes(text), onto)
        elif onto is not None:
            self.remove(name, onto=onto)

    def write(self, record: Record, *, onto: Digest | None) -> None:
        """Write one record and keep unknown fields; `onto`: digest of the file, None: no file yet.

        Raises `BooksChanged` if the file has another digest. A copy of a broken record is kept.
        """
        name = record.container
        path = self._reader.build_path(name)
        if not is_recordable(name):
            raise WriteFailed(f"{self._path}: invalid container name {make_printable(name)}")
        with self._open_to_change(path, name) as folder:
            # The file as it is now: unknown fields that a script added meanwhile are kept.
            base = None if onto is None else self._read_expected(folder, name, onto)
            # Nothing is thrown away unseen: somebody may still read what was meant.
            if base is not None and not _is_valid(base, name):
                keep_copy(
                    self._keep_dir, name, base, newest=_MAX_COPIES, newest_of_all=_MAX_COPIES_IN_ALL
                )
            self._replace_file(folder, path, name, render_record(base, record), onto)

    def remove(self, name: ContainerName, *, onto: Digest) -> None:
        """Remove one record. Raises `BooksChanged` if its digest is not `onto`."""
        path = self._reader.build_path(name)
        with self._open_to_change(path, name) as folder:
            self._read_expected(folder, name, onto)
            # What was changed before is durable first: after a crash there is no removal without
            # it.
            syncs.flush()
            os.unlink(path.name, dir_fd=folder)
            syncs.sync(folder)

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed writers, if the last reading listed any."""
        if self._reader.has_leftovers:
            with suppress(OSError, BooksChanged), self._folder.to_write() as folder:
                atomic_write.remove_abandoned(folder)

    def _replace_file(
        self, folder: int, path: Path, name: ContainerName, data: bytes, onto: Digest | None
    ) -> None:
        if onto is None:
            usual = self._reader.find_usual_status(folder)
            atomic_write.create_file(path, data, like=usual, folder=folder)
        elif data != self._read_expected(folder, name, onto):
            atomic_write.replace_file(
                path, data, before=lambda: self._read_expected(folder, name, onto), folder=folder
            )

    @contextmanager
    def _open_to_change(self, path: Path, name: ContainerName) -> Iterator[int]:
        with (
            atomic_write.wrap_write_errors(path),
            self._folder.to_write() as folder,
            self._reader.note_change(folder, name),
        ):
            if self._reader.has_leftovers:
                atomic_write.remove_abandoned(folder)
            yield folder
            syncs.flush()  # the record is durable, whatever may follow

    def _read_expected(self, folder: int, name: ContainerName, onto: Digest) -> bytes:
        data = self._reader.read_content(folder, name)
        if isinstance(data, NotRead):
            raise data.make_write_error()
        if digest_of(data) != onto:
            raise BooksChanged(f"{self._reader.build_path(name)} has changed since it was read")
        return data


def as_text(data: bytes) -> str:
    """Any bytes as text from which `as_bytes` makes them again."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = _ENCODED
    # Also what begins with the mark by itself, or the way back would decode it.
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
