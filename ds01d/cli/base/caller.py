"""The person who runs a command, for the logs."""

from __future__ import annotations

from ds01d.adapters.host.callers import current_actor
from ds01d.text import make_printable


def caller_name() -> str:
    """The login of the process; with sudo, also the user of sudo."""
    return make_printable(current_actor().short)[:64]
