"""Names of uids and gids, for messages. A login is never waited for long."""

from __future__ import annotations

import grp
import pwd
import threading
import time
from typing import Final

_WAIT_S: Final = 0.2
_FORGOTTEN_AFTER_S: Final = 60.0  # what was not answered is asked again then
_answers: dict[int, tuple[str, float]] = {}


def find_login(uid: int) -> str:
    """The login of `uid`, or "uid N" where the host knows none, or does not answer in time.

    NSS may ask LDAP, and hang: a thread waits for it, and at most one a minute for each uid.
    """
    text, until = _answers.get(uid, ("", 0.0))
    if time.monotonic() < until:
        return text
    # Noted before the lookup: a directory that hangs is asked once a minute, not for each message.
    _answers[uid] = (f"uid {uid}", time.monotonic() + _FORGOTTEN_AFTER_S)
    thread = threading.Thread(target=_look_up, args=(uid,), name="login", daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    return _answers[uid][0]


def _look_up(uid: int) -> None:
    try:
        name = pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError, OSError):
        return
    if name.isprintable():
        _answers[uid] = (name, time.monotonic() + _FORGOTTEN_AFTER_S)


def find_group(gid: int) -> str:
    """The name of a group, or "gid N". May wait for a directory service."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"
