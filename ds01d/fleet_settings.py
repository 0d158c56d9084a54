"""The values of [fleet] that have a form of their own: names of hosts. Pure."""

from __future__ import annotations

import re
from typing import Final

from ds01d import config_text

# As ssh_config(5) takes them: an alias there is a name like any other.
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")


def ssh_host_problem(name: str) -> str | None:
    """What is wrong with the name of a host for ssh; None if nothing is.

    Users and ports belong into ssh_config, and a leading "-" would be an option.
    """
    if _HOST.fullmatch(name):
        return None
    return (
        f"{config_text.show_value(name)} is not a valid host name: write one as ssh knows it, like"
        ' "gpu01" (user and port: in ssh_config)'
    )
