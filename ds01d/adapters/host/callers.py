"""Who calls a command, and who a uid is, by the host's user database. May wait for a directory."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from functools import cache

from ds01d.adapters.host.privileges import user_behind_root
from ds01d.errors import Refused
from ds01d.model.actor import Actor
from ds01d.model.creation import Caller, Person


def look_up_person(uid: int) -> Person:
    """A user; one whom the host does not know is called by the uid, as Docker does it."""
    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return Person(uid=uid, name=str(uid), gid=uid)
    return Person(uid=uid, name=entry.pw_name, gid=entry.pw_gid, home=entry.pw_dir)


def find_user(user: int | str) -> Person:
    """A user by uid or login, with all groups. Raises `Refused` for one whom the host lacks."""
    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    except (KeyError, OverflowError, ValueError, OSError) as error:
        raise Refused(f'no user "{user!s:.80}"') from error
    return Person(
        uid=entry.pw_uid,
        name=entry.pw_name,
        gid=entry.pw_gid,
        home=entry.pw_dir,
        groups=tuple(sorted(set(groups))),
    )


@cache
def current_actor() -> Actor:
    """Who this process is, as it began: also after it has taken on another uid."""
    uid = os.getuid()
    sudo_uid = user_behind_root(os.environ) if uid == 0 else None
    return Actor(
        uid=uid,
        login=look_up_person(uid).name,
        pid=os.getpid(),
        sudo_uid=sudo_uid,
        sudo_login="" if sudo_uid is None else look_up_person(sudo_uid).name,
    )


def identify_caller(environ: Mapping[str, str]) -> Caller:
    """Who calls: the user behind `sudo`, with root's rights, or the process's own user."""
    behind = user_behind_root(environ)
    return Caller(person=look_up_person(behind or os.getuid()), root=os.geteuid() == 0)
