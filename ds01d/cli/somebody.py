"""Who types a command, for whoever reads later what was done."""

from __future__ import annotations

import os
import pwd

from ds01d.cli.words import printable


def somebody() -> str:
    """Who calls: sudo tells, else the user database."""
    name = os.environ.get("SUDO_USER", "")
    if not name:
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            name = f"uid {os.getuid()}"
    return printable(name)[:64]
