"""Checks of the notices to users: whether they can be given, and whether they are.

Reads records and asks systemd; sends nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ds01d.adapters.notices.delivery_file import FOLDER, read_record
from ds01d.cli.doctor.path_checks import effective_user, has_access
from ds01d.cli.doctor.service_checks import run_tool
from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.config import Config, NotifyConfig
from ds01d.errors import Malformed
from ds01d.text import format_count

UNITS: Final = {
    "ds01d-notify.service": ("terminals", "greetings"),
    "ds01d-notify-network.service": ("command", "mail", "webhook"),
}


def check_notices(config: Config, booted: Path) -> Iterator[Check]:
    """The folder of the lab, the programs, what became of notices, and the units that send them.

    systemd has made `booted`, where it runs.
    """
    yield from _check_alerts(config.notify)
    if not config.notify.uses_sender:
        return
    yield from _check_programs(config.notify)
    for name in _list_targets(config.notify):
        yield _check_record(name, config.notify.state_dir / FOLDER / f"{name}.json")
    if booted.is_dir():
        yield from _check_units(config.notify)


def _check_alerts(notify: NotifyConfig) -> Iterator[Check]:
    # Decision 239: what others wrote there is kept, so it has to be read, too.
    folder = notify.folder
    if folder is None:
        return
    if has_access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield ok("notices", f"{folder} is writable")
        return
    detail = f"{folder} is not writable for {effective_user()}; users get no notices"
    yield warn("notices", detail, "create it, or grant write permission")


def _list_targets(notify: NotifyConfig) -> list[str]:
    is_on = {
        "terminals": notify.terminals,
        "greetings": notify.greetings,
        "command": notify.command,
        "mail": notify.mail,
        "webhook": notify.webhook,
    }
    return [name for name, value in is_on.items() if value]


def _check_programs(notify: NotifyConfig) -> Iterator[Check]:
    for key, value in (("command", notify.command), ("mail", notify.mail)):
        if value.startswith("/") and not os.access(value, os.X_OK):
            detail = f"notify.{key}: {value} is missing, or not executable"
            yield warn("notices", detail, "install it, or correct the configuration")


def _check_record(name: str, path: Path) -> Check:
    try:
        record = read_record(path)
    except Malformed as error:
        return warn("notices", f"{name}: {error}", "restart ds01d-notify; it begins a new record")
    if record is None:
        return ok("notices", f"{name}: nothing was sent yet")
    counts = f"{name}: {format_count(record.sent, 'notice')} sent, {record.failed} failed"
    if record.is_failing:
        return warn("notices", f"{counts}; last: {record.failure}", "see docs/notices.md")
    return ok("notices", counts)


def _check_units(notify: NotifyConfig) -> Iterator[Check]:
    targets = set(_list_targets(notify))
    for unit, of_unit in UNITS.items():
        if not targets & {*of_unit}:
            continue
        answer = run_tool(("systemctl", "is-active", unit))
        state = answer if isinstance(answer, str) else answer.stdout.strip()
        if state == "active":
            yield ok("notices", f"{unit} is active")
        else:
            detail = f"{unit} is {state or 'unknown'}: {', '.join(of_unit)} are not served"
            yield warn("notices", detail, f"systemctl restart {unit}; journalctl -u {unit}")
