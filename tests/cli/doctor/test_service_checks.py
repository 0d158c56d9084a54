"""What `doctor` says of systemd, from the words of `systemctl` and `journalctl`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ds01d.cli.doctor.service_checks import SANDBOX, check_lab_units, check_service
from ds01d.cli.doctor.source_checks import Check, Health
from ds01d.reporting.message_ids import MESSAGES

WELL = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "DropInPaths": "",
    "User": "nobody",
    "WatchdogUSec": "1min",
    **SANDBOX,
}
KNOWN = "\n".join(f"{message.id} ds01d: something" for message in MESSAGES.values())
Look = Callable[..., dict[str, Check]]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Have both commands answer so; gives the checks by name, the worse of two."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", str(bin_), prepend=":")

    def ask(
        *, catalog: str = KNOWN, journal: bool = True, booted: bool = True, **unit: str
    ) -> dict[str, Check]:
        told = "\n".join(f"{key}={value}" for key, value in {**WELL, **unit}.items())
        for name, answer in (("systemctl", told), ("journalctl", catalog)):
            (bin_ / name).write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
            (bin_ / name).chmod(0o755)
        for folder, there in (("journal", journal), ("booted", booted)):
            if there:
                (tmp_path / folder).mkdir(exist_ok=True)
        found: dict[str, Check] = {}
        for check in check_service(tmp_path / "booted", tmp_path / "journal"):
            assert bool(check.fix) == (check.health is not Health.OK)
            if check.name not in found or check.health is not Health.OK:
                found[check.name] = check
        return found

    return ask


def test_a_service_that_is_well(look: Look) -> None:
    told = look()
    assert {check.health for check in told.values()} == {Health.OK}
    assert told["unit"].detail == "ds01d.service is active, enabled"
    assert told["sandbox"].detail == "in force, for user nobody"
    assert "runuser -u nobody" in told["user"].detail
    assert told["catalog"].detail == f"journalctl -x explains all {len(MESSAGES)} messages"


@pytest.mark.parametrize(
    ("unit", "name", "told", "mend"),
    [
        ({"LoadState": "not-found"}, "unit", "is not-found", "install"),
        ({"ActiveState": "failed"}, "unit", "is failed", "journalctl -u"),
        ({"UnitFileState": "disabled"}, "unit", "will not start at boot", "enable"),
        (
            {"NeedDaemonReload": "yes"},
            "unit",
            "changed since systemd loaded them",
            "no container uses a GPU",
        ),
        ({"ProtectSystem": "no", "DropInPaths": "/etc/x.conf"}, "sandbox", "x.conf", "cat"),
        ({"NoNewPrivileges": "no"}, "sandbox", "NoNewPrivileges=no", "systemctl cat"),
        ({"User": "no-such"}, "user", 'no-such" of the unit does not exist', "systemd-sysusers"),
        ({"WatchdogUSec": "0"}, "watchdog", "off", "WatchdogSec="),
        ({"WatchdogUSec": "infinity"}, "watchdog", "off", "WatchdogSec="),
    ],
)
def test_what_is_wrong_is_told_with_its_mend(
    look: Look, unit: dict[str, str], name: str, told: str, mend: str
) -> None:
    check = look(**unit)[name]
    assert check.health is Health.WARN
    assert told in check.detail
    assert mend in check.fix


def test_a_drop_in_that_undoes_nothing_is_named(look: Look) -> None:
    told = look(DropInPaths="/etc/systemd/system/ds01d.service.d/metrics.conf")["sandbox"]
    assert (told.health, "metrics.conf" in told.detail) == (Health.OK, True)


def test_a_journal_that_is_forgotten_and_a_catalog_that_is_missing(look: Look) -> None:
    told = look(journal=False, catalog=KNOWN.splitlines()[0])
    assert told["journal"].health is Health.WARN
    missing = len(MESSAGES) - 1
    assert told["catalog"].detail == f"{missing} messages missing in the message catalog"


def test_without_systemd_there_is_nothing_to_miss(look: Look) -> None:
    (check,) = look(booted=False).values()
    assert check.detail == "systemd is not running here"


LAB_UNITS = """\
Id=ds01-exporter.service
LoadState=loaded
ActiveState=active

Id=ds01-container-owner-tracker.service
LoadState=loaded
ActiveState=failed

Id=ds01-container-sync.service
LoadState=not-found
ActiveState=inactive
"""


def test_the_units_that_a_release_of_the_lab_wants_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tool = tmp_path / "systemctl"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{LAB_UNITS}END\n")
    tool.chmod(0o755)
    (check,) = check_lab_units(tmp_path)
    assert check.health is Health.WARN
    assert check.detail.startswith("ds01-container-owner-tracker.service is failed: ")
    tool.write_text(tool.read_text().replace("failed", "active"))
    assert [one.health for one in check_lab_units(tmp_path)] == [Health.OK]
    tool.write_text(tool.read_text().replace("=loaded", "=not-found"))
    assert list(check_lab_units(tmp_path)) == []
    assert list(check_lab_units(tmp_path / "not-booted")) == []
