"""Names of users by uid and uids by name, without ever waiting long for a directory service.

/etc/passwd is read first. What it does not have is asked of the host (NSS: LDAP, SSSD) by one
thread in the background; an answer that is late is there the next time.
"""

from __future__ import annotations

import grp
import os
import pwd
import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

_FOUND_TTL_S = 3600.0
_NOT_FOUND_TTL_S = 60.0
_MAX_ENTRIES = 10_000


Key = int | str | tuple[str, str]  # a uid, a user's name, or a user's name and a group's


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """The answer for a uid or a name. `result` None: no such user, or the lookup failed."""

    result: str | int | None
    until: float


def _is_member(login: str, group: str) -> bool:
    """Whether a user is in a group, by the host's services, which may block. Raises KeyError."""
    members = os.getgrouplist(login, pwd.getpwnam(login).pw_gid)
    return grp.getgrnam(group).gr_gid in members


class UserDatabase:
    """The host's user database. Any thread may ask it.

    `look_up` (a uid's name) and `look_up_name` (a name's uid) are asked in the background and may
    block; they raise KeyError where there is no such user.
    """

    def __init__(
        self,
        *,
        wait_s: float = 0.2,
        file: Path = Path("/etc/passwd"),
        look_up: Callable[[int], str] = lambda uid: pwd.getpwuid(uid).pw_name,
        look_up_name: Callable[[str], int] = lambda name: pwd.getpwnam(name).pw_uid,
        look_up_member: Callable[[str, str], bool] = _is_member,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait_s = wait_s
        self._file = file
        self._look_up = look_up
        self._look_up_name = look_up_name
        self._look_up_member = look_up_member
        self._clock = clock
        self._changed = threading.Condition()
        self._entries: dict[Key, _Entry] = {}
        self._queued: list[Key] = []
        self._is_running = False
        self._local: dict[int, str] = {}
        self._local_version: tuple[int, ...] = ()

    def find_logins(self, uids: frozenset[int]) -> Mapping[int, str]:
        """Names of those uids that are known by now; waits at most `wait_s` for what is new."""
        local = self._read_file()
        # Only what the file does not have: a directory service answers for the rest.
        others = self._query_services(uids - local.keys())
        logins = {uid: name for uid in uids if isinstance(name := others.get(uid), str)}
        return logins | {uid: local[uid] for uid in uids & local.keys()}

    def find_uids(self, names: frozenset[str]) -> Mapping[str, int]:
        """Uids of those names that are known by now; waits as `names` does."""
        local = {name: uid for uid, name in self._read_file().items()}
        others = self._query_services(names - local.keys())
        uids = {name: uid for name in names if isinstance(uid := others.get(name), int)}
        return uids | {name: local[name] for name in names & local.keys()}

    def is_member(self, login: str, group: str) -> bool:
        """Whether a user is in a group; False also where that is not known in time.

        /etc/group is not read first: whether a user is in a group is up to all services together.
        """
        # Membership is never taken from the file alone: SSSD may add to a local group.
        key = (login, group)
        with self._changed:
            # An old name is better than none; an old membership is a right that may be lost by now.
            if not self._is_fresh(key, self._clock()):
                self._entries.pop(key, None)
        return self._query_services({key}).get(key) is True

    def _query_services(self, keys: AbstractSet[Key]) -> Mapping[Key, str | int | None]:
        """The answers of other services than the file, as far as they have come."""
        with self._changed:
            now = self._clock()
            stale = {key for key in keys if not self._is_fresh(key, now)}
            # Only what nobody has asked yet is waited for: a service that hangs costs once.
            new = stale - self._entries.keys() - set(self._queued)
            if len(self._entries) > _MAX_ENTRIES:  # labels may claim any name
                self._entries = {k: e for k, e in self._entries.items() if now < e.until}
            self._queue_lookups(stale)
            self._changed.wait_for(lambda: new <= self._entries.keys(), timeout=self._wait_s)
            return {key: self._entries[key].result for key in keys & self._entries.keys()}

    def _is_fresh(self, key: Key, now: float) -> bool:
        return key in self._entries and now < self._entries[key].until

    def _queue_lookups(self, keys: set[Key]) -> None:
        self._queued += sorted(keys - set(self._queued), key=str)
        if self._queued and not self._is_running:
            self._is_running = True
            threading.Thread(target=self._run_lookups, name="passwd", daemon=True).start()

    def _run_lookups(self) -> None:
        """Look up what was asked, until nothing is left."""
        while True:
            with self._changed:
                if not self._queued:
                    self._is_running = False
                    return
                key = self._queued[0]
            try:
                result = self._find(key)
            except (KeyError, OverflowError, OSError, ValueError):  # of a name with a NUL, too
                result = None
            with self._changed:
                # Who leaves a group has to lose its rights soon.
                is_lasting = isinstance(key, int | str) and result is not None
                ttl_s = _FOUND_TTL_S if is_lasting else _NOT_FOUND_TTL_S
                self._entries[key] = _Entry(result=result, until=self._clock() + ttl_s)
                self._queued.remove(key)
                self._changed.notify_all()

    def _find(self, key: Key) -> str | int | None:
        if isinstance(key, int):
            return self._look_up(key)
        return self._look_up_name(key) if isinstance(key, str) else self._look_up_member(*key)

    def _read_file(self) -> Mapping[int, str]:
        """Read the file again if it changed; where two lines have a uid, the first one counts."""
        try:
            status = self._file.stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if version != self._local_version:
                # The file answers for most users without asking a directory service.
                lines = self._file.read_text("utf-8", "replace").splitlines()
                self._local = dict(filter(None, map(_parse_line, reversed(lines))))
                self._local_version = version
        except OSError:
            self._local, self._local_version = {}, ()
        return self._local


def _parse_line(line: str) -> tuple[int, str] | None:
    """Understand a line of /etc/passwd; those of NIS (+, -) and broken ones are None."""
    name, _, uid, *_ = [*line.split(":"), "", "", ""]
    if not name or name[0] in "+-#" or not (uid.isascii() and uid.isdigit()):
        return None
    return int(uid), name
