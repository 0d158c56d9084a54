"""Notices on a user's terminals, as wall(1) and write(1) give them. Never waits for a terminal."""

from __future__ import annotations

import os
import pwd
import select
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ds01d.adapters.notices.login_sessions import PSEUDO_TERMINAL, find_login_terminals
from ds01d.errors import DeliveryFailed
from ds01d.model.notice import DeliveryTarget, SpooledNotice
from ds01d.text import make_printable

_DEVICES: Final = Path("/dev")
_PTS_MAJORS: Final = range(136, 144)
_WAIT_S: Final = 1.0
"""How long a terminal may take. A stopped one (Ctrl-S) takes nothing at all."""


def find_uid(login: str) -> int:
    """The uid of a user of this host. Raises `DeliveryFailed`."""
    try:
        return pwd.getpwnam(login).pw_uid
    except (KeyError, ValueError, UnicodeEncodeError):  # a NUL or half a character, too
        shown = make_printable(login)[:64]
        raise DeliveryFailed(f'no user "{shown}" on this host', is_final=True) from None


class Terminals:
    """Needs group `tty` and no capability, so that the kernel keeps `mesg n`."""

    name: Final = DeliveryTarget.TERMINALS

    def __init__(
        self,
        host: str,
        find_terminals: Callable[[str, int], Iterable[str]] = find_login_terminals,
    ) -> None:
        self._host, self._find_terminals = host, find_terminals

    def send(self, notice: SpooledNotice) -> None:
        """Write to each; that somebody is not logged in is no failure. Raises `DeliveryFailed`."""
        uid = find_uid(notice.user)
        data = format_for_terminal(notice, self._host)
        names = sorted(self._find_terminals(notice.user, uid))
        failures = [*filter(None, (_write_to(name, uid, data) for name in names))]
        if failures:
            # Not again: others have it already, and it would be old for this one.
            raise DeliveryFailed("; ".join(failures)[:500], is_final=True)


def format_for_terminal(notice: SpooledNotice, host: str) -> bytes:
    """The lines to write, in ASCII: a byte of UTF-8 may be a command to another terminal."""
    at = time.strftime("%H:%M", time.localtime(notice.at))
    text = make_printable(f"GPU notice from {host} at {at}: {notice.message}")
    return f"\r\n\r\n{text}\r\n\r\n".encode("ascii", "backslashreplace")


def _write_to(name: str, uid: int, data: bytes) -> str:
    """Write, unless it is not the user's, or refuses messages; what failed, or ""."""
    if not PSEUDO_TERMINAL.fullmatch(name):
        return ""
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    path = _DEVICES / name
    try:
        # Decision 263: `mesg n` takes away the group's right alone, and a process of the owner
        # would write all the same. And utmp keeps entries of terminals that others have by now.
        if not _takes_messages(path.lstat(), uid):
            return ""
        descriptor = os.open(path, flags)
        try:
            if _takes_messages(os.fstat(descriptor), uid):
                _write_within(descriptor, data)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, PermissionError):  # logged out; `mesg n` since
        return ""
    except OSError as error:
        return f"/dev/{name}: {error.strerror or error}"
    return ""


def _takes_messages(status: os.stat_result, uid: int) -> bool:
    return bool(
        stat.S_ISCHR(status.st_mode)
        and os.major(status.st_rdev) in _PTS_MAJORS
        and status.st_uid == uid
        and status.st_mode & stat.S_IWGRP
    )


def _write_within(descriptor: int, data: bytes) -> None:
    until, rest = time.monotonic() + _WAIT_S, memoryview(data)
    while rest:
        with suppress(BlockingIOError):
            rest = rest[os.write(descriptor, rest) :]
            continue
        left_s = until - time.monotonic()
        if left_s <= 0 or not select.select([], [descriptor], [], left_s)[1]:
            raise TimeoutError(0, "the terminal is stopped")
