"""The books as they lie on disk, each change of them, and the history; read by code of its own.

A thread looks every few milliseconds. Between two looks several may have written: a change is told
with the moments between which it happened.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.daemon import Site
from tests.verification.campaign.clock import boot
from tests.verification.campaign.foreign import Pair, pairs_of

EVERY_S = 0.004


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The state at a moment. `slots`: (container, slot); `devices`: (container, UUID)."""

    inode: int
    digest: str
    slots: frozenset[Pair]
    uuids: Mapping[str, str]
    users: Mapping[str, Mapping[str, int]]
    listed: Mapping[str, Sequence[str]]

    @property
    def devices(self) -> frozenset[Pair]:
        return frozenset((name, self.uuids.get(slot, slot)) for name, slot in self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The state changed between `begin` and `end`. `before` None: it made no sense before.

    `after` None: it makes no sense now.
    """

    begin: float
    end: float
    before: Document | None
    after: Document | None
    in_place: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChange:
    """Metadata of a container changed. None: there is none."""

    name: str
    begin: float
    end: float
    before: str | None
    after: str | None


@dataclass(slots=True, kw_only=True)
class Entry:
    """An entry of the history; `at`: when it was first seen here."""

    id: str
    at: float
    boot: float
    kind: str
    container: str
    slot: str
    taken: frozenset[Pair]
    given: frozenset[Pair]
    devices_taken: frozenset[Pair]
    records_removed: frozenset[str]
    records: frozenset[str]
    reason: str
    outcome: str = "open"
    closed: float = 0.0


@dataclass(slots=True, kw_only=True)
class History:
    """The history, as far as it was ever read; nothing that happens to the file takes it back."""

    folder: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    _read: dict[int, int] = field(default_factory=dict)

    def read(self) -> None:
        """Read what has come since."""
        paths = sorted(self.folder.glob("history.jsonl*"), reverse=True)
        for path in paths:
            with suppress(OSError), path.open("rb") as file:
                status = os.fstat(file.fileno())
                done = self._read.get(status.st_ino, 0)
                if status.st_size < done:
                    done = 0
                file.seek(done)
                data = file.read()
                whole = data.rfind(b"\n") + 1
                self._read[status.st_ino] = done + whole
                for line in data[:whole].splitlines():
                    self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            if told["phase"] == "begin":
                self.entries.setdefault(told["id"], read_entry(told))
            elif told["id"] in self.entries:
                self.entries[told["id"]].outcome = told["phase"]
                self.entries[told["id"]].closed = boot()
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # a line that was torn


def read_entry(told: Mapping[str, Any]) -> Entry:
    """The entry of a line of the history that begins a change."""
    before, after = told.get("before") or {}, told.get("after") or {}
    was, now = before.get("slots") or {}, after.get("slots") or {}
    held = {(name, slot) for slot, one in was.items() for name in (one or {}).get("containers", ())}
    holds = {(n, slot) for slot, one in now.items() for n in (one or {}).get("containers", ())}
    uuid_was = {slot: (one or {}).get("uuid", slot) for slot, one in was.items()}
    uuid_now = {slot: (one or {}).get("uuid", slot) for slot, one in now.items()}
    # Slots as they are called afterwards: the same write may have given them other devices.
    taken = {(name, slot) for name, slot in told.get("taken") or ()}
    devices_taken = {(n, uuid_now.get(slot) or uuid_was.get(slot) or slot) for n, slot in taken}
    texts, later = before.get("metadata") or {}, after.get("metadata") or {}
    removed = {n for n, text in texts.items() if text is not None and later.get(n, "") is None}
    return Entry(
        id=told["id"],
        at=boot(),
        boot=float(told.get("boot", 0.0)),
        kind=told.get("kind", ""),
        container=told.get("container") or "",
        slot=told.get("slot") or "",
        taken=frozenset(taken | (held - holds)),
        given=frozenset(holds - held),
        devices_taken=frozenset(devices_taken),
        records_removed=frozenset(removed),
        records=frozenset({*texts, *later}),
        reason=told.get("reason", ""),
    )


class Books:
    """Watches the files while it is open, and tells `on_change` and `on_record`, in its thread."""

    def __init__(
        self,
        site: Site,
        on_change: Callable[[Change], None],
        on_record: Callable[[RecordChange], None],
    ) -> None:
        self._site = site
        self._on_change, self._on_record = on_change, on_record
        self.history = History(folder=site.state_dir)
        self.document: Document | None = None
        self.records: dict[str, tuple[object, str]] = {}
        self._seen: tuple[int, ...] | None = None
        self._inode = 0
        self._at = boot()
        self._records_at = self._at
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="books", daemon=True)
        self.troubles: list[str] = []

    def __enter__(self) -> Books:  # noqa: PYI034 - typing has no Self in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(60)

    def record(self, name: str) -> Mapping[str, Any] | None:
        """A record as it is now, {} where it makes no sense."""
        found = self.records.get(name)
        if found is None:
            return None
        with suppress(ValueError):
            document = json.loads(found[1])
            return document if isinstance(document, dict) else {}
        return {}

    def _watch(self) -> None:
        turn = 0
        while not self._closing.wait(EVERY_S):
            turn += 1
            try:
                self._look()
                if turn % 5 == 0:
                    self._look_at_records()
                if turn % 25 == 0:
                    self.history.read()
            except OSError as error:
                self.troubles.append(str(error))

    # --- the state

    def _look(self) -> None:
        now = boot()
        signature = _signature(self._site.state)
        if signature == self._seen:
            self._at = now
            return
        data = _content(self._site.state)
        if _signature(self._site.state) != signature:
            return  # somebody writes; look again
        self._seen = signature
        document = None if data is None else _document(data, signature[0] if signature else 0)
        end = boot()
        inode = signature[0] if signature else 0
        in_place = inode == self._inode
        # Not `end`: a write that comes after the signature was read belongs to the next change.
        begin, self._at, self._inode = self._at, now, inode
        if (
            document is not None
            and self.document is not None
            and (document.digest == self.document.digest)
        ):
            self.document = document
            return
        before, self.document = self.document, document
        self.history.read()
        self._on_change(
            Change(begin=begin, end=end, before=before, after=document, in_place=in_place)
        )

    # --- the metadata

    def _record_now(self, file: str, folder: int) -> tuple[object, str] | None:
        signature = _signature(Path(file), folder)
        if signature is None:
            return None
        known = self.records.get(file.removesuffix(".json"))
        if known is not None and known[0] == signature:
            return known
        data = _content(Path(file), folder)
        if data is not None and signature == _signature(Path(file), folder):
            return (signature, data.decode(errors="replace"))
        return None if known is None else (None, known[1])

    def _look_at_records(self) -> None:
        now = boot()
        found: dict[str, tuple[object, str]] = {}
        try:  # a fault may put a symbolic link in its place: what is behind that is no metadata
            folder = os.open(self._site.metadata, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            for file in os.listdir(folder):  # noqa: PTH208 - of a descriptor
                if file.endswith(".json") and not file.startswith("."):
                    record = self._record_now(file, folder)
                    if record is not None:
                        found[file.removesuffix(".json")] = record
        finally:
            os.close(folder)
        before, self.records = self.records, found
        begin, self._records_at = self._records_at, now
        changed = [
            name
            for name in sorted({*before, *found})
            if before.get(name, ("", None))[1] != found.get(name, ("", None))[1]
        ]
        if changed:
            self.history.read()
        for name in changed:
            was, is_ = before.get(name), found.get(name)
            self._on_record(
                RecordChange(
                    name=name,
                    begin=begin,
                    end=boot(),
                    before=None if was is None else was[1],
                    after=None if is_ is None else is_[1],
                )
            )


def _signature(path: Path, folder: int | None = None) -> tuple[int, ...] | None:
    try:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


def _content(path: Path, folder: int | None = None) -> bytes | None:
    with suppress(OSError), os.fdopen(os.open(path, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()
    return None


def _document(data: bytes, inode: int) -> Document | None:
    try:
        told = json.loads(data)
        slots = told["gpus"]
        return Document(
            inode=inode,
            digest=hashlib.sha256(data).hexdigest(),
            slots=pairs_of(told),
            uuids={slot: str(one.get("uuid") or slot) for slot, one in slots.items()},
            users={slot: dict(one["users"]) for slot, one in slots.items()},
            listed={slot: tuple(one["containers"]) for slot, one in slots.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def newest(entries: Mapping[str, Entry], since: float) -> Iterator[Entry]:
    """Those that were seen since a moment, newest first."""
    for entry in reversed(list(entries.values())):
        if entry.at < since:
            return
        yield entry
