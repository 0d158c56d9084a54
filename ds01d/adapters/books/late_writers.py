"""Files that we replaced while somebody may still have been writing to them.

A writer without a lock opens the state in place. If we rename a new file over it meanwhile, what
it writes lands in the old inode and would be lost. So the old inode keeps a name of its own:

    .gpu-state.json.ds01d-replaced-<CLOCK_BOOTTIME in ms>-<random>        the old inode, linked
    .gpu-state.json.ds01d-replaced-<CLOCK_BOOTTIME in ms>-<random>.base   what we had read in it

The pair outlives our process. Bookings that the link holds beyond its base were written by
somebody else. They are missing from the state whenever they are not in it: also if they were
merged, and a writer with an older copy wiped them out again. Only what ds01d itself releases is
added to the base; what an allocator releases so soon comes back, and is found as drift.

A pair goes when it is older than ten seconds (every open that was under way is done by then),
nobody has the old file open for writing (a read lease shows it; where there are none, when it is
older than a minute), and nothing in it is left to take over.

The base file is not synced: after a power failure no writer is left, and a base that does not
match its own checksum is recognized. This module compares; it decides nothing about bookings and
never touches the state itself.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ds01d.adapters.books.state_format import parse_state, render_state
from ds01d.adapters.books.state_merge import LateChange
from ds01d.adapters.books.state_reader import LIMIT
from ds01d.adapters.files import atomic_write
from ds01d.adapters.files.leases import is_open_for_writing
from ds01d.adapters.files.permissions import is_private
from ds01d.adapters.files.safe_read import (
    NotRead,
    Signature,
    digest_of,
    open_file,
    read_bytes,
    read_unchanged,
)
from ds01d.adapters.host.clocks import read_boottime
from ds01d.errors import BooksChanged, Malformed
from ds01d.model.books import AllocatorState

_SETTLED_S = 10.0
_SETTLED_WITHOUT_LEASES_S = 60.0
_MAX_LINKS = 64
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})

_Pair = tuple[Signature, Signature]


class ReplacedFiles:
    """The links beside one state file. `folder` is always an open descriptor of its directory.

    `is_shared`: others may write the file, too. Links of before count in any case.
    """

    def __init__(self, path: Path, *, is_shared: bool) -> None:
        self._path, self._is_shared = path, is_shared
        self._prefix = f".{path.name}.ds01d-replaced-"
        self._idle: dict[str, _Pair] = {}  # those that were read and held nothing new

    def keep_replaced(self, folder: int, descriptor: int, base: bytes) -> None:
        """Link the file that is about to be replaced; raises `BooksChanged` if it is not `base`.

        Where the kernel lets nobody link it (a file of somebody else's that we may not write, with
        fs.protected_hardlinks; a file system without links) nothing is kept of it; nor where
        nobody else writes it.
        """
        link = f"{self._prefix}{int(read_boottime() * 1000):013d}-{secrets.token_hex(4)}"
        name = self._path.name
        try:
            # Decision 212: the file shows it, too: taking it over may have failed.
            if self._is_shared or not is_private(descriptor, 0o644):
                self._write_base(folder, link, base)
                name = self._link_file(folder, link)
            current = os.stat(name, dir_fd=folder, follow_symlinks=False)
            as_read = _same_file(current, os.fstat(descriptor))
            as_read = as_read and read_unchanged(descriptor, LIMIT) == base
        except BaseException:
            self._remove_link(folder, link)
            raise
        if not as_read:
            self._remove_link(folder, link)
            raise BooksChanged(f"{self._path} has changed since it was read")

    def _link_file(self, folder: int, link: str) -> str:
        """Give the file a second name, if that can be; the name to read it by."""
        name = self._path.name
        try:
            os.link(name, link, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._remove_link(folder, link)
            return name
        return link

    def forget_unreplaced(self, folder: int) -> None:
        """Drop links to the file as it is: their maker got no further. Only under the lock."""
        with suppress(FileNotFoundError):
            current = os.stat(self._path.name, dir_fd=folder, follow_symlinks=False)
            for link in self._list_links(folder):
                if _same_file(current, os.stat(link, dir_fd=folder, follow_symlinks=False)):
                    self._remove_link(folder, link)

    def find_changes(
        self, folder: int, links: Iterable[str] | None = None
    ) -> tuple[list[LateChange], bool]:
        """What others wrote into replaced files (all, or these); whether somebody is writing."""
        changes = []
        torn = False
        idle: dict[str, _Pair] = {}
        for link in self._list_links(folder) if links is None else links:
            pair = self._read_signatures(folder, link)
            # Links stay for ten seconds: two stats in each pass must do for one that is idle.
            if pair is not None and pair == self._idle.get(link):
                idle[link] = pair
                continue
            base = self._read_base(folder, link)
            data = self._read_link(folder, link)
            if base is None or data == base:
                if pair is not None and not any(file.is_racy() for file in pair):
                    idle[link] = pair
                continue
            # A writer truncates first, so half a state is what a write in progress looks like.
            written = _parse_or_none(data)
            if written is None:
                torn = True
            else:
                changes.append(LateChange(link=link, base=_parse_or_none(base), now=written))
        self._idle = idle if links is None else {**self._idle, **idle}
        return changes, torn

    def release(self, folder: int, before: AllocatorState, after: AllocatorState) -> None:
        """What is about to be released on purpose does not come back. Only under the lock."""
        for change in self.find_changes(folder)[0]:
            base = change.without_released(before, after)
            if base is not None:
                self._write_base(folder, change.link, render_state(None, base))

    def drop_settled(self, folder: int, current: AllocatorState) -> None:
        """Drop the pairs that have done their duty; and the oldest, if there are very many."""
        links = sorted(filter(self._is_link, os.listdir(folder)))
        settled = [link for link in links[-_MAX_LINKS:] if self._has_settled(folder, link)]
        changes = {change.link: change for change in self.find_changes(folder, settled)[0]}
        for link in settled:
            change = changes.get(link)
            if not (change and change.added_to(current)):
                self._remove_link(folder, link)
        for link in links[:-_MAX_LINKS]:
            self._remove_link(folder, link)
        # A base without its link is left by a process that was killed in between.
        for name in os.listdir(folder):
            link = name.removesuffix(".base")
            is_orphan = self._is_link(link) and link != name and link not in links
            if is_orphan and _link_age_s(link) > 60.0:
                self._remove_link(folder, link)

    def _list_links(self, folder: int) -> Iterator[str]:
        """The newest links: a user who may write to the folder may make any number of them."""
        return iter(sorted(filter(self._is_link, os.listdir(folder)))[-_MAX_LINKS:])

    def _is_link(self, name: str) -> bool:
        return name.startswith(self._prefix) and not name.endswith(".base")

    def _read_link(self, folder: int, link: str) -> bytes | None:
        descriptor = open_file(self._path.with_name(link), folder=folder)
        if isinstance(descriptor, NotRead):
            return None
        try:
            return read_unchanged(descriptor, LIMIT)
        finally:
            os.close(descriptor)

    def _read_signatures(self, folder: int, link: str) -> _Pair | None:
        """What changes when either file of a pair changes."""
        with suppress(OSError):
            names = (link, f"{link}.base")
            replaced, base = (os.stat(name, dir_fd=folder, follow_symlinks=False) for name in names)
            return Signature.of(replaced), Signature.of(base)
        return None

    def _read_base(self, folder: int, link: str) -> bytes | None:
        """What the link was known to hold; None if that was lost (a power failure)."""
        data = read_bytes(self._path.with_name(f"{link}.base"), LIMIT + 100, folder=folder)
        if isinstance(data, NotRead):
            return None
        # The base is not synced; its checksum shows what a power failure left of it.
        digest, _, base = data.partition(b"\n")
        return base if digest == digest_of(base).encode() else None

    def _write_base(self, folder: int, link: str, base: bytes) -> None:
        path = self._path.with_name(f"{link}.base")
        data = f"{digest_of(base)}\n".encode() + base
        atomic_write.replace_file(path, data, mode=0o640, durable=False, folder=folder)

    def _remove_link(self, folder: int, link: str) -> None:
        for name in (link, f"{link}.base"):
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)

    def _has_settled(self, folder: int, link: str) -> bool:
        age = _link_age_s(link)
        # A writer that opened the file before the rename may not have begun to write.
        if age < _SETTLED_S:
            return False
        descriptor = open_file(self._path.with_name(link), folder=folder)
        if isinstance(descriptor, NotRead):
            return age > _SETTLED_WITHOUT_LEASES_S
        try:
            written_to = is_open_for_writing(descriptor)
        finally:
            os.close(descriptor)
        return age > _SETTLED_WITHOUT_LEASES_S if written_to is None else not written_to


def _same_file(first: os.stat_result, second: os.stat_result) -> bool:
    """By inode, and by all its times where an overlay shows another inode for a second name."""
    outside = (first.st_nlink, first.st_size, first.st_mtime_ns, first.st_ctime_ns)
    return os.path.samestat(first, second) or (
        first.st_nlink > 1
        and outside == (second.st_nlink, second.st_size, second.st_mtime_ns, second.st_ctime_ns)
    )


def _parse_or_none(data: bytes | None) -> AllocatorState | None:
    with suppress(Malformed):
        return None if data is None else parse_state(data, "a replaced file")
    return None


def _link_age_s(link: str) -> float:
    """Seconds since it was made; one of an earlier boot has no writer left and counts as old."""
    made = link.rsplit("-", 2)[1]
    age = read_boottime() - int(made) / 1000 if made.isdecimal() else _SETTLED_WITHOUT_LEASES_S + 1
    return age if age >= 0 else _SETTLED_WITHOUT_LEASES_S + 1
