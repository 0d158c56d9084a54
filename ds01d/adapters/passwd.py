"""Names of users by uid, without ever waiting long for a directory service.

/etc/passwd is read first. What it does not have is asked of the host (NSS: LDAP, SSSD) by one
thread in the background; an answer that is late is there the next time.
"""

from __future__ import annotations

import pwd
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_NAMES_LAST_S = 3600.0
_NOBODY_LASTS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What was heard of a uid. `name` None: the host knows no such user, or failed to say."""

    name: str | None
    until: float


class HostPasswd:
    """The host's user database. Any thread may ask it.

    `look_up` is asked in the background and may block; it raises KeyError for a uid without user.
    """

    def __init__(
        self,
        *,
        wait_s: float = 0.2,
        file: Path = Path("/etc/passwd"),
        look_up: Callable[[int], str] = lambda uid: pwd.getpwuid(uid).pw_name,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait_s = wait_s
        self._file = file
        self._look_up = look_up
        self._clock = clock
        self._heard = threading.Condition()
        self._entries: dict[int, _Entry] = {}
        self._asked: list[int] = []
        self._asking = False
        self._local: dict[int, str] = {}
        self._local_version: tuple[int, ...] = ()

    def names(self, uids: frozenset[int]) -> Mapping[int, str]:
        """Names of those uids that are known by now; waits at most `wait_s` for what is new."""
        local = self._read_file()
        elsewhere = uids - local.keys()
        with self._heard:
            now = self._clock()
            stale = {uid for uid in elsewhere if not self._is_fresh(uid, now)}
            # Only what nobody has asked yet is waited for: a service that hangs costs once.
            new = stale - self._entries.keys() - set(self._asked)
            self._ask(stale)
            self._heard.wait_for(lambda: new <= self._entries.keys(), timeout=self._wait_s)
            heard = {uid: self._entries[uid].name for uid in elsewhere & self._entries.keys()}
        known = {uid: name for uid, name in heard.items() if name is not None}
        return known | {uid: local[uid] for uid in uids & local.keys()}

    def _is_fresh(self, uid: int, now: float) -> bool:
        return uid in self._entries and now < self._entries[uid].until

    def _ask(self, uids: set[int]) -> None:
        self._asked += sorted(uids - set(self._asked))
        if self._asked and not self._asking:
            self._asking = True
            threading.Thread(target=self._answer, name="passwd", daemon=True).start()

    def _answer(self) -> None:
        """Look up what was asked, until nothing is left."""
        while True:
            with self._heard:
                if not self._asked:
                    self._asking = False
                    return
                uid = self._asked[0]
            try:
                name = self._look_up(uid)
            except (KeyError, OverflowError, OSError):
                name = None
            with self._heard:
                lasts = _NOBODY_LASTS_S if name is None else _NAMES_LAST_S
                self._entries[uid] = _Entry(name=name, until=self._clock() + lasts)
                self._asked.remove(uid)
                self._heard.notify_all()

    def _read_file(self) -> Mapping[int, str]:
        """Read the file again if it changed; where two lines have a uid, the first one counts."""
        try:
            status = self._file.stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if version != self._local_version:
                lines = self._file.read_text("utf-8", "replace").splitlines()
                self._local = dict(filter(None, map(_parse, reversed(lines))))
                self._local_version = version
        except OSError:
            self._local, self._local_version = {}, ()
        return self._local


def _parse(line: str) -> tuple[int, str] | None:
    """Understand a line of /etc/passwd; those of NIS (+, -) and broken ones are None."""
    name, _, uid, *_ = [*line.split(":"), "", "", ""]
    if not name or name[0] in "+-#" or not (uid.isascii() and uid.isdigit()):
        return None
    return int(uid), name
