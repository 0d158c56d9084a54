"""Logins as the names of slices and groups of limits have them. Pure."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

from ds01d.model.primitives import UserName

_MAX_SANITIZED: Final = 32
_CUT: Final = 27


@lru_cache(maxsize=4096)
def sanitize_login(login: str) -> tuple[UserName, ...]:
    """A login as a part of a slice's name, as the server's other tools write it.

    Of a long one there is a second form: the lab's shell scripts join the digest with a hyphen.
    """
    # No hyphens: systemd takes each for a slice within a slice.
    plain = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_:]", "_", login.partition("@")[0])).strip("_")
    if len(plain) <= _MAX_SANITIZED:
        return (UserName(plain or "_"),)
    digest = hashlib.md5(login.encode(), usedforsecurity=False).hexdigest()[:4]
    return UserName(f"{plain[:_CUT].rstrip('_')}_{digest}"), UserName(f"{plain[:_CUT]}-{digest}")
