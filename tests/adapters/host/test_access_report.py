"""What root leaves for ds01d about the devices of containers, and when it counts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.host.access_report import VALID_S, AccessReport
from ds01d.adapters.host.device_cgroups import DeviceCgroups
from ds01d.model.device_access import DeviceAccess, TriedAccess
from ds01d.model.primitives import Boot, ContainerId, Now, Wall

ID, OTHER = ContainerId("a1" * 32), ContainerId("b2" * 32)
NOW = Now(wall=Wall(1_800_000_000.0), boot=Boot(5000.0), boot_id="this")
TRIED = TriedAccess(
    container=ID, started=Wall(1.25), allowed=frozenset({255}), denied=frozenset({1})
)


def report_in(folder: Path, owner: int | None = None) -> AccessReport:
    return AccessReport(folder / "access.json", os.geteuid() if owner is None else owner)


def after(seconds: float) -> Now:
    return Now(wall=NOW.wall, boot=Boot(NOW.boot + seconds), boot_id=NOW.boot_id)


def test_what_was_tried_is_known_and_nothing_else(tmp_path: Path) -> None:
    report = report_in(tmp_path)
    report.write([TRIED], NOW)
    (access,) = report.read_access({ID, OTHER}, after(VALID_S)).values()
    assert [access.denies(minor) for minor in (0, 1, 255)] == [False, True, False]
    assert access.started == TRIED.started
    assert report.read_access({OTHER}, NOW) == {}
    # Where the rules can be read, they come before it.
    (tmp_path / "docker" / ID).mkdir(parents=True)
    (tmp_path / "docker" / ID / "devices.list").write_text("c 195:* rw\n")
    rules = DeviceCgroups(tmp_path, report=report, now=lambda: NOW).read_access({ID})
    assert not rules[ID].denies(1)
    (tmp_path / "docker" / ID / "devices.list").write_text("a *:* rwm\n")
    rules = DeviceCgroups(tmp_path, report=report, now=lambda: NOW).read_access({ID})
    assert rules[ID].denies(1)


@pytest.mark.parametrize("now", [after(VALID_S + 1), after(-1.0)], ids=["old", "ahead"])
def test_of_another_time_it_says_nothing(tmp_path: Path, now: Now) -> None:
    report = report_in(tmp_path)
    report.write([TRIED], NOW)
    assert report.read_access({ID}, now) == {}


def read(report: AccessReport) -> Mapping[ContainerId, DeviceAccess]:
    return report.read_access({ID}, NOW)


def test_of_somebody_else_it_says_nothing(tmp_path: Path) -> None:
    report_in(tmp_path).write([TRIED], NOW)
    assert read(report_in(tmp_path))
    assert read(report_in(tmp_path, owner=12345)) == {}
    (linked := tmp_path / "linked").mkdir()
    (linked / "access.json").symlink_to(tmp_path / "access.json")
    assert read(report_in(linked)) == {}
    assert read(report_in(tmp_path / "missing")) == {}
    (folder := tmp_path / "folder" / "access.json").mkdir(parents=True)
    assert read(report_in(folder.parent)) == {}


@given(data=st.binary(max_size=200))
def test_any_bytes_are_no_report(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "access.json").write_bytes(data)
    assert read(report_in(folder)) == {}


def test_a_huge_or_odd_report_is_none(tmp_path: Path) -> None:
    row = '{"container": "%s", "started": 1.0, "denied": [%s]}'
    for text in (
        " " * (4 * 1024 * 1024 + 1),
        "[" * 100_000,
        '{"at": 4999.0, "containers": [%s]}' % (row % (ID, '"x"')),
        '{"at": 1e999, "containers": []}',
    ):
        (tmp_path / "access.json").write_text(text)
        assert read(report_in(tmp_path)) == {}
