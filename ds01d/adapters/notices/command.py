"""Notices to a command of the administrator, with everything in its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ds01d.adapters.notices.programs import TIMEOUT_S, run_program
from ds01d.errors import DeliveryFailed
from ds01d.model.notice import DeliveryTarget, SpooledNotice
from ds01d.text import make_printable

SEARCH_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_PASSED_ON: Final = ("CREDENTIALS_DIRECTORY", "TZ")


class NoticeCommand:
    """`path`: it is run once for each notice, one at a time, and without arguments."""

    name: Final = DeliveryTarget.COMMAND

    def __init__(self, path: Path, host: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path, self._host, self._timeout_s = path, host, timeout_s

    def send(self, notice: SpooledNotice) -> None:
        """Run it. Raises `DeliveryFailed` unless it exits with 0."""
        code, output = run_program(
            [str(self._path)],
            describe_in_environment(notice, self._host),
            timeout_s=self._timeout_s,
            # What a script leaves behind in the background would pile up, notice by notice.
            ends_children=True,
        )
        if code:
            reason = f"exit status {code}" if code > 0 else f"signal {-code}"
            # As sysexits(3) has it: only 75 (EX_TEMPFAIL) asks to be tried again.
            raise DeliveryFailed(f"{self._path}: {reason}{output}", is_final=code != os.EX_TEMPFAIL)


def describe_in_environment(notice: SpooledNotice, host: str) -> dict[str, str]:
    """All of its environment: no argument, so that nothing of users is taken for an option."""
    values = {
        "ID": notice.id,
        "KIND": notice.kind,
        "TIME": f"{notice.at:.0f}",
        "USER": notice.user,
        "CONTAINER": notice.container,
        "SLOTS": " ".join(notice.slots),
        "UNTIL": "" if notice.until is None else f"{notice.until:.0f}",
        "MESSAGE": notice.message,
        "HOST": host,
    }
    passed_on = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    return {
        "PATH": SEARCH_PATH,
        "LANG": "C.UTF-8",
        **passed_on,
        **{f"DS01_NOTICE_{key}": make_printable(value) for key, value in values.items()},
    }
