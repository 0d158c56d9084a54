"""What `doctor` asks of systemd: the unit as it is in force, the journal and its message catalog.

Asks `systemctl show` and `journalctl --list-catalog` once each, with a deadline; changes nothing.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.cli.output.text import format_count
from ds01d.reporting.message_ids import MESSAGES

UNIT: Final = "ds01d.service"
_PATIENCE_S: Final = 5.0
_ASKED: Final = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload", "DropInPaths",
    "User", "WatchdogUSec",
)  # fmt: skip
# What the unit has set, and what a drop-in would have to undo to let ds01d do more than it needs.
SANDBOX: Final[Mapping[str, str]] = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictSUIDSGID": "yes",
    "MemoryDenyWriteExecute": "yes",
}
_FOREVER: Final = frozenset({"0", "infinity", ""})


def check_service(booted: Path, journal: Path) -> Iterator[Check]:
    """Unit, journal and catalog, where systemd runs: then it has made `booted`.

    `journal` is where journald keeps what is to outlive a boot.
    """
    systemctl = shutil.which("systemctl")
    if systemctl is None or not booted.is_dir():
        yield ok("unit", "no systemd here")
        return
    words = (systemctl, "show", UNIT, f"--property={','.join((*_ASKED, *SANDBOX))}")
    answer = _run_tool(words)
    if isinstance(answer, str):
        yield warn("unit", f"systemctl does not answer: {answer}", "see systemctl status")
    else:
        yield from _check_unit(
            dict(line.partition("=")[::2] for line in answer.stdout.splitlines())
        )
    if journal.is_dir():
        yield ok("journal", f"kept in {journal}")
    else:
        mend = f"mkdir -p {journal}; systemctl restart systemd-journald"
        yield warn("journal", "not kept: what ds01d did is forgotten with a reboot", mend)
    yield from _check_catalog()


def _check_unit(told: Mapping[str, str]) -> Iterator[Check]:
    if told.get("LoadState") != "loaded":
        yield warn("unit", f"{UNIT} is {told.get('LoadState', 'unknown')}", "install the unit")
        return
    state = f"{UNIT} is {told.get('ActiveState')}, {told.get('UnitFileState')}"
    if told.get("ActiveState") != "active":
        yield warn("unit", state, f"systemctl enable --now {UNIT}; journalctl -u {UNIT}")
    elif told.get("UnitFileState") == "disabled":
        yield warn(
            "unit", f"{state}: it will not be there after a reboot", f"systemctl enable {UNIT}"
        )
    else:
        yield ok("unit", state)
    if told.get("NeedDaemonReload") == "yes":
        yield warn(
            "unit",
            "its files were changed, and systemd has not read them yet",
            "systemctl daemon-reload, once no running container has a GPU: it takes GPUs from them",
        )
    yield from _check_sandbox(told)


def _check_sandbox(told: Mapping[str, str]) -> Iterator[Check]:
    """What holds for the service, drop-ins included. What systemd does not tell is not judged."""
    dropped = told.get("DropInPaths", "")
    undone = [
        f"{name}={told[name]}" for name, right in SANDBOX.items() if told.get(name, right) != right
    ]
    if undone:
        where = f" (drop-ins: {dropped})" if dropped else ""
        yield warn(
            "sandbox",
            f"{', '.join(undone)}: ds01d may do more than it needs{where}",
            f"see systemctl cat {UNIT}, and take out what is not meant",
        )
    elif told.keys() & SANDBOX.keys():
        with_ = f"; drop-ins: {dropped}" if dropped else ""
        yield ok("sandbox", f"in force, for user {told.get('User') or 'root'}{with_}")
    yield from _check_user(told.get("User") or "root")
    if told.get("WatchdogUSec", "1min") in _FOREVER:
        mend = f"see systemctl cat {UNIT} for what undoes WatchdogSec="
        yield warn("watchdog", "off: a daemon that hangs is not started again", mend)


def _check_user(name: str) -> Iterator[Check]:
    """The rest is checked with the rights of whoever calls; the service has those of its user."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        mend = "systemd-sysusers, or correct User= in the unit"
        yield warn("user", f"the service runs as {name}, whom nobody knows", mend)
        return
    if user.pw_uid != os.geteuid():
        told = f"the service runs as {name}: `runuser -u {name} -- ds01ctl doctor` has its rights"
        yield ok("user", told)


def _check_catalog() -> Iterator[Check]:
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return
    ids = [message.id for message in MESSAGES.values()]
    answer = _run_tool((journalctl, "--list-catalog", *ids))
    told = "" if isinstance(answer, str) else answer.stdout
    missing = sum(ident not in told for ident in ids)
    if missing:
        mend = "install ds01d.catalog to /usr/lib/systemd/catalog; journalctl --update-catalog"
        yield warn(
            "catalog", f"journalctl -x does not know {format_count(missing, 'message')}", mend
        )
    else:
        yield ok("catalog", f"journalctl -x explains all {len(ids)} messages")


def _run_tool(words: tuple[str, ...]) -> subprocess.CompletedProcess[str] | str:
    """What a command answers, or why it does not."""
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
