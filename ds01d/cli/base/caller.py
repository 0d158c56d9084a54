"""Who types a command, for whoever reads later what was done."""

from __future__ import annotations

from ds01d.adapters.host.callers import current_actor
from ds01d.cli.output.text import make_printable


def caller_name() -> str:
    """The login of the process; with sudo, also whom sudo names."""
    return make_printable(current_actor().short)[:64]
