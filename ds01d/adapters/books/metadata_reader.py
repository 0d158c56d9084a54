"""Reads the records of container-metadata/ through a descriptor of the folder.

A file is read again only if its signature changed. A torn record is given a moment: it may just be
written. What is read is bounded before it is understood.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from ds01d.adapters.books.metadata_format import parse_record, read_container_name
from ds01d.adapters.books.metadata_listing import (
    SUFFIX,
    find_usual_status,
    is_file_name,
    list_files,
)
from ds01d.adapters.files.safe_read import (
    NotRead,
    ReadFailure,
    Signature,
    digest_of,
    open_file,
    read_unchanged,
    too_large,
)
from ds01d.errors import Malformed, WriteFailed
from ds01d.model.books import BadRecord, Record, is_recordable
from ds01d.model.primitives import ContainerName, Digest
from ds01d.text import make_printable

LIMIT = 256 << 10  # of one record, which takes some 200 bytes

_PAUSE_S = 0.0005
_PAUSES = 100  # for all torn records of one reading together; counted, since a look can be slow
_TRIES = 20
_TICK_S = 0.02  # of the clock that stamps files, at 100 Hz and at its worst
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedRecord:
    """A record as it was read; `racy`: a change of the file may leave the same signature."""

    signature: Signature
    racy: bool
    record: Record | BadRecord


class MetadataReader:
    """The records of one folder, as they were last read. `has_leftovers`: of killed writers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cached: dict[str, _CachedRecord] = {}
        self._records: dict[ContainerName, Record | BadRecord] = {}  # of `_cached`, by name
        self._complete = False
        self._changed: set[ContainerName] = set()  # by this process, and not read since
        self._folder: Signature | None = None  # of `_records`; None: it could not be compared
        self.has_leftovers = False

    def read_records(
        self, folder: int, names: frozenset[ContainerName] | None
    ) -> dict[ContainerName, Record | BadRecord]:
        """Every record; with `names` the others are as they were last read.

        Raises `TooManyFiles` or OSError.
        """
        if names is None or not self._complete:
            return self._read_all(folder)
        return self._read_some(folder, names)

    def _read_all(self, folder: int) -> dict[ContainerName, Record | BadRecord]:
        pauses = repeat(_PAUSE_S, _PAUSES)
        cached: dict[str, _CachedRecord] = {}
        signature = _sign_folder(folder)
        self._folder = None if signature.is_racy(_TICK_S) else signature
        # One listing for both: with thousands of records it is what a reading costs.
        files, self.has_leftovers = list_files(folder)
        for file in files:
            entry = self._read_entry(folder, file, pauses)
            if entry is not None:
                cached[file] = entry
        self._cached, self._complete = cached, True
        self._changed.clear()
        self._records = {entry.record.container: entry.record for entry in cached.values()}
        return dict(self._records)

    def _read_some(
        self, folder: int, names: frozenset[ContainerName]
    ) -> dict[ContainerName, Record | BadRecord]:
        pauses = repeat(_PAUSE_S, _PAUSES)
        for name in filter(is_file_name, names | self._changed):
            entry = self._read_entry(folder, f"{name}{SUFFIX}", pauses)
            if entry is None:
                self.drop_cached(name)
            else:
                self._cached[f"{name}{SUFFIX}"] = entry
                self._records[name] = entry.record
        self._changed.clear()
        return dict(self._records)

    def is_current(self, folder: int) -> bool:
        """Whether no record was made, replaced or removed since the last reading, but by us."""
        # Stamps in whole milliseconds may be as coarse as seconds.
        return (
            self._folder is not None
            and self._folder.modified_ns % _NS_PER_MS != 0
            and self._folder == _sign_folder(folder)
        )

    @contextmanager
    def note_change(self, folder: int, name: ContainerName) -> Iterator[None]:
        """Whatever the block changes in the folder is of one record, and done by us."""
        was_current = self.is_current(folder)
        try:
            yield
        finally:
            self._changed.add(name)
            self._folder = _sign_folder(folder) if was_current else None

    def find_usual_status(self, folder: int) -> os.stat_result | None:
        """As `metadata_listing.find_usual_status`; a listing of thousands takes longer."""
        return find_usual_status(folder, self._cached or os.listdir(folder))

    def drop_cached(self, name: ContainerName) -> None:
        self._cached.pop(f"{name}{SUFFIX}", None)
        self._records.pop(name, None)

    def _read_entry(self, folder: int, file: str, pauses: Iterator[float]) -> _CachedRecord | None:
        """One file; None if it does not exist any more."""
        try:
            status = os.stat(file, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        signature = Signature.of(status)
        before = self._cached.get(file)
        # Most records never change: a stat is all that a sweep spends on them.
        if before is not None and not before.racy and before.signature == signature:
            return before
        # Taken before the file is read, or a write in between would go unnoticed.
        racy = signature.is_racy()
        name = ContainerName(file.removesuffix(SUFFIX))
        record = self._read_record(folder, name, pauses) if is_file_name(name) else None
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
            # Shared by all records: many broken ones must not add up to a long pass.
            pause_s = next(pauses, None)
            if pause_s is None:
                break
            time.sleep(pause_s)
            record = self._parse_file(folder, name)
        return record

    def _parse_file(self, folder: int, name: ContainerName) -> Record | BadRecord | None:
        data = self.read_content(folder, name)
        if isinstance(data, NotRead):
            if data.obstacle is ReadFailure.MISSING:
                return None
            return BadRecord(
                container=name, reason=data.reason, digest=Digest(""), replaceable=False
            )
        try:
            return parse_record(data, name)
        except Malformed as error:
            reason = f"{self.build_path(name)}: {error}"
            digest = digest_of(data)
            return BadRecord(container=name, reason=reason, digest=digest, replaceable=True)

    def _claims_name(self, folder: int, name: ContainerName) -> bool:
        """The file contains `name`, which is not a valid container name."""
        # decision 73: then a script wrote it together with a booking; else it is no record.
        data = self.read_content(folder, name)
        return isinstance(data, bytes) and read_container_name(data) == name

    def _make_misnamed(self, file: str) -> BadRecord:
        shown = make_printable(file)
        return BadRecord(
            container=ContainerName(shown.removesuffix(SUFFIX)),
            reason=f"{self._path}/{shown}: invalid container name",
            digest=Digest(""),
            replaceable=False,
        )

    def read_content(self, folder: int, name: ContainerName) -> bytes | NotRead:
        path = self.build_path(name)
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
            obstacle=ReadFailure.CHANGING, reason=f"{path} keeps changing while it is read"
        )

    def _is_recent(self, folder: int, name: ContainerName) -> bool:
        try:
            status = os.stat(self.build_path(name).name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return Signature.of(status).is_racy()

    def build_path(self, name: ContainerName) -> Path:
        if not is_file_name(name):
            raise WriteFailed(f"{self._path}: invalid container name {make_printable(name)}")
        return self._path / f"{name}{SUFFIX}"


def _sign_folder(folder: int) -> Signature:
    return Signature.of(os.fstat(folder))
