"""Who types a command, for whoever reads later what was done."""

from __future__ import annotations

import os
import pwd

from ds01d.cli.words import printable

_CALLER_UID = os.getuid()  # before root acts as the service's user


def somebody() -> str:
    """Who calls: sudo tells, else the user database."""
    name = os.environ.get("SUDO_USER", "")
    if not name:
        try:
            name = pwd.getpwuid(_CALLER_UID).pw_name
        except KeyError:
            name = f"uid {_CALLER_UID}"
    return printable(name)[:64]
