"""Folders, opened so that nobody without rights can turn a path elsewhere.

A path is walked component by component, by descriptor, and no symbolic link is followed, except
one that only root (or the user we run as) can have put there, like /var/run. What lies in a folder
that others may write to has to belong to somebody who is trusted: root, the user we run as, the
owner of `service`, or the user whom they gave a folder above it. A folder that passes is used
by its descriptor from then on, whatever happens to its name.

The rule is that of the kernel's fs.protected_symlinks (Documentation/admin-guide/sysctl/fs.rst)
and of systemd's CHASE_SAFE (src/basic/chase.h), with the groups that share a folder added.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Final

from ds01d.errors import BooksChanged
from ds01d.logins import find_login

_WALK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS: Final = 40  # as the kernel
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class UntrustedFolder(OSError):
    """A path that an unprivileged user can redirect; `fix`: what to do about it."""

    def __init__(self, number: int, reason: str, fix: str) -> None:
        super().__init__(number, reason)
        self.fix = fix


class Folder:
    """A folder that is opened again and again, for reading and for writing what was decided.

    `service`: a folder of ds01d's own, whose owner is trusted too.
    """

    def __init__(self, path: Path, service: Path | None = None) -> None:
        self.path = path
        self._service = service
        self._read: tuple[int, int] | None = None

    @contextmanager
    def to_read(self) -> Iterator[int]:
        """A descriptor of it. Raises `OSError`, an `UntrustedFolder` among them."""
        descriptor = open_folder(self.path, self._service)
        try:
            self._read = _read_identity(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def to_write(self) -> Iterator[int]:
        """As `to_read`; raises `BooksChanged` if it is another one than was read last."""
        descriptor = open_folder(self.path, self._service)
        try:
            # What was decided is about the files of the folder that was read, not of its name.
            if self._read not in {None, _read_identity(descriptor)}:
                raise BooksChanged(f"{self.path} is another folder than the one that was read")
            yield descriptor
        finally:
            os.close(descriptor)


def open_folder(path: Path, service: Path | None = None) -> int:
    """A descriptor of the directory `path`, to be closed by the caller.

    Raises `OSError`: `UntrustedFolder` where somebody else could have turned the path elsewhere.
    """
    place = _open_last(path, service)
    try:
        # The walk opens with O_PATH: folders that may be entered and not read lie on the way.
        return os.open(".", _READ, dir_fd=place)
    finally:
        os.close(place)


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """`open_folder`, for a block."""
    descriptor = open_folder(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int) -> None:
    """Make a directory and those above it, as `mkdir -p` does, on a path that is trusted.

    One that is there stays as it is. Raises `OSError`.
    """
    with suppress(FileNotFoundError):
        os.close(open_folder(path))
        return
    if path.parent != path:
        make_folder(path.parent, 0o755)
    with opened_folder(path.parent) as parent, suppress(FileExistsError):
        os.mkdir(path.name, mode, dir_fd=parent)
    os.close(open_folder(path))


def owner_of(path: Path) -> os.stat_result | None:
    """Who owns the directory `path`; None if there is none, or its path is not trusted."""
    with suppress(OSError):
        place = _open_last(path, None)
        try:
            return os.fstat(place)
        finally:
            os.close(place)
    return None


def _read_identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _open_last(path: Path, service: Path | None) -> int:
    """The directory at the end of `path`, opened for nothing but its name."""
    walk = _Walk(path, service)
    try:
        walk.to_the_end()
    except BaseException:
        os.close(walk.place)
        raise
    return walk.place


class _Walk:
    """On the way along one path: `place` is the directory that was reached."""

    def __init__(self, path: Path, service: Path | None) -> None:
        self._service = service
        self._ourselves = frozenset({0, os.geteuid()})
        self._trusted = set(self._ourselves)
        self._links = 0
        self._pending = deque(path.parts)
        self._names: list[str] = []  # of what was passed, for messages
        self._open_to_others = self._open_to_trusted = False
        # Not from ".", which those we act as may not be allowed to pass.
        if path.is_absolute():
            self._names.append(self._pending.popleft())
            self.place = os.open("/", _WALK | os.O_DIRECTORY)
        else:
            self.place = os.open(".", _WALK | os.O_DIRECTORY)
            self._note_rights(os.fstat(self.place))

    def to_the_end(self) -> None:
        while self._pending:
            name = self._pending.popleft()
            if name == "/":
                self._start_at_root()
            else:
                self._enter_component(name)

    def _start_at_root(self) -> None:
        root = os.open("/", _WALK | os.O_DIRECTORY)
        os.close(self.place)
        self.place, self._names = root, ["/"]
        self._trusted = set(self._ourselves)
        self._open_to_others = self._open_to_trusted = False

    def _show(self, name: str) -> PurePath:
        return PurePath(*self._names, name)

    def _enter_component(self, name: str) -> None:
        descriptor = os.open(name, _WALK, dir_fd=self.place)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISLNK(status.st_mode):
                self._follow_link(name, descriptor, status)
                return
            self._check_directory(name, status)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(self.place)
        self.place = descriptor

    def _follow_link(self, name: str, link: int, status: os.stat_result) -> None:
        """Go where a link leads, if nobody but us can have made it."""
        target = os.readlink("", dir_fd=link)
        # Decision 88: a link counts as much as the user who could have put it there.
        if self._open_to_trusted or status.st_uid not in self._ourselves:
            raise UntrustedFolder(
                errno.ELOOP,
                f"{self._show(name)} is a symbolic link of {find_login(status.st_uid)}"
                f" to {target[:200]!a}",
                "it is not followed: remove it and put the folder itself there, or name the target"
                " in the configuration",
            )
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        # Its target is walked like the path itself: it may lead through other folders and links.
        self._pending.extendleft(reversed(PurePath(target).parts))
        os.close(link)

    def _check_directory(self, name: str, status: os.stat_result) -> None:
        """Whether the directory `name` may be gone through, by who could have put it there."""
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        owner = status.st_uid
        if self._open_to_others and owner not in self._trusted and owner != self._service_owner():
            shown = self._show(name)
            raise UntrustedFolder(
                errno.EPERM,
                f"{shown} belongs to {find_login(owner)}, and others than root can put a folder"
                " there",
                f"look at what is in it, then: chown {self._suggest_owner()} {shown}",
            )
        # Below a folder that only trusted users can fill its owner is trusted too.
        if not self._open_to_others:
            self._trusted.add(owner)
        self._names.append(name)
        self._note_rights(status)

    def _note_rights(self, status: os.stat_result) -> None:
        """Who can put something into the directory that we are about to be in."""
        shared = bool(status.st_mode & _OTHERS_WRITE)
        self._open_to_others = shared or status.st_uid not in self._trusted
        self._open_to_trusted = shared or status.st_uid not in self._ourselves

    def _service_owner(self) -> int | None:
        if self._service is None:
            return None
        status = owner_of(self._service)
        return None if status is None else status.st_uid

    def _suggest_owner(self) -> str:
        uid = self._service_owner()
        return find_login(os.geteuid() if uid is None else uid)
