"""Checks of systemd: the unit as loaded, the journal and its message catalog.

Calls `systemctl show` and `journalctl --list-catalog` once each, with a deadline; changes nothing.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from ds01d.cli.doctor.known_programs import RELEASE_UNITS
from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.reporting.message_ids import MESSAGES
from ds01d.text import format_count

UNIT: Final = "ds01d.service"
# systemctl waits for PID 1, and journalctl for disks: a check does not wait as long as they might.
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
# As `systemctl show` has written "none" from version to version.
_FOREVER: Final = frozenset({"0", "infinity", ""})


def check_service(booted: Path, journal: Path) -> Iterator[Check]:
    """Unit, journal and catalog, where systemd runs: then it has made `booted`.

    `journal` is where journald keeps what is to outlive a boot.
    """
    systemctl = shutil.which("systemctl")
    # In a container systemctl may be installed without a running systemd.
    if systemctl is None or not booted.is_dir():
        yield ok("unit", "systemd is not running here")
        return
    command = (systemctl, "show", UNIT, f"--property={','.join((*_ASKED, *SANDBOX))}")
    answer = run_tool(command)
    if isinstance(answer, str):
        yield warn("unit", f"systemctl failed: {answer}", "see systemctl status")
    else:
        yield from _check_unit(
            dict(line.partition("=")[::2] for line in answer.stdout.splitlines())
        )
    if journal.is_dir():
        yield ok("journal", f"persistent in {journal}")
    else:
        fix = f"mkdir -p {journal}; systemctl restart systemd-journald"
        yield warn("journal", "not persistent: the log of ds01d is lost at a reboot", fix)
    yield from _check_catalog()


def _check_unit(properties: Mapping[str, str]) -> Iterator[Check]:
    if properties.get("LoadState") != "loaded":
        yield warn(
            "unit", f"{UNIT} is {properties.get('LoadState', 'unknown')}", "install the unit"
        )
        return
    state = f"{UNIT} is {properties.get('ActiveState')}, {properties.get('UnitFileState')}"
    if properties.get("ActiveState") != "active":
        yield warn("unit", state, f"systemctl enable --now {UNIT}; journalctl -u {UNIT}")
    elif properties.get("UnitFileState") == "disabled":
        yield warn("unit", f"{state}: it will not start at boot", f"systemctl enable {UNIT}")
    else:
        yield ok("unit", state)
    if properties.get("NeedDaemonReload") == "yes":
        yield warn(
            "unit",
            "unit files changed since systemd loaded them",
            "systemctl daemon-reload, while no container uses a GPU (it would lose it)",
        )
    yield from _check_sandbox(properties)


def _check_sandbox(properties: Mapping[str, str]) -> Iterator[Check]:
    """The sandbox in force, drop-ins included; a property that systemd omits is skipped."""
    drop_ins = properties.get("DropInPaths", "")
    # Properties that this systemd does not know are not reported as weakened.
    weakened = [
        f"{name}={properties[name]}"
        for name, expected in SANDBOX.items()
        if properties.get(name, expected) != expected
    ]
    if weakened:
        where = f" (drop-ins: {drop_ins})" if drop_ins else ""
        yield warn(
            "sandbox",
            f"{', '.join(weakened)}: the sandbox is weaker than shipped{where}",
            f"see systemctl cat {UNIT}, and remove what is not intended",
        )
    elif properties.keys() & SANDBOX.keys():
        suffix = f"; drop-ins: {drop_ins}" if drop_ins else ""
        yield ok("sandbox", f"in force, for user {properties.get('User') or 'root'}{suffix}")
    yield from _check_user(properties.get("User") or "root")
    if properties.get("WatchdogUSec", "1min") in _FOREVER:
        fix = f"see systemctl cat {UNIT} for what overrides WatchdogSec="
        yield warn("watchdog", "off: a hanging daemon is not restarted", fix)


def _check_user(name: str) -> Iterator[Check]:
    """Other checks run with the permissions of the caller, the service with those of its user."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        fix = "systemd-sysusers, or correct User= in the unit"
        yield warn("user", f'user "{name}" of the unit does not exist', fix)
        return
    if user.pw_uid != os.geteuid():
        detail = f"the service runs as {name}; to check as it: runuser -u {name} -- ds01ctl doctor"
        yield ok("user", detail)


def _check_catalog() -> Iterator[Check]:
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return
    ids = [message.id for message in MESSAGES.values()]
    answer = run_tool((journalctl, "--list-catalog", *ids))
    catalog = "" if isinstance(answer, str) else answer.stdout
    missing = sum(ident not in catalog for ident in ids)
    if missing:
        fix = "install ds01d.catalog to /usr/lib/systemd/catalog; journalctl --update-catalog"
        yield warn(
            "catalog", f"{format_count(missing, 'message')} missing in the message catalog", fix
        )
    else:
        yield ok("catalog", f"journalctl -x explains all {len(ids)} messages")


def check_lab_units(booted: Path, units: Sequence[str] = RELEASE_UNITS) -> Iterator[Check]:
    """The lab's own services that its releases need, where they are installed."""
    systemctl = shutil.which("systemctl")
    if systemctl is None or not booted.is_dir():
        return
    answer = run_tool((systemctl, "show", *units, "--property=Id,LoadState,ActiveState"))
    if isinstance(answer, str):
        return  # `check_service` reports it
    states: dict[str, str] = {}
    for block in answer.stdout.split("\n\n"):
        properties = dict(line.partition("=")[::2] for line in block.splitlines())
        # systemctl answers for units that are not installed, too.
        if properties.get("LoadState") == "loaded":
            states[properties.get("Id", "")] = properties.get("ActiveState", "unknown")
    down = {unit: state for unit, state in states.items() if state != "active"}
    for unit, state in down.items():
        detail = f"{unit} is {state}: the lab's next release will be rolled back"
        yield warn("lab units", detail, f"systemctl start {unit}; systemctl status {unit}")
    if states and not down:
        yield ok("lab units", f"{', '.join(states)}: active")


def run_tool(command: tuple[str, ...]) -> subprocess.CompletedProcess[str] | str:
    """The completed command, or why it could not run."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
            # No tool may ask for a password here.
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
