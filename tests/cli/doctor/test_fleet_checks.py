"""What `doctor` says of this host in a fleet whose hosts share a store."""

from __future__ import annotations

from pathlib import Path

from ds01d.cli.doctor.fleet_checks import check_fleet, describe_membership
from ds01d.cli.doctor.source_checks import Health
from ds01d.config_file import parse_config
from ds01d.model.primitives import Wall
from ds01d.reporting.fleet_status import FleetStatus


def test_how_this_host_stands() -> None:
    fenced = describe_membership(FleetStatus(state="fenced", since=Wall(0.0), reason="a copy"))
    assert (fenced.health, fenced.detail) == (Health.WARN, "this host is fenced: a copy")
    assert fenced.fix.startswith("ds01ctl fleet rejoin")
    assert describe_membership(FleetStatus(state="member", since=Wall(0.0))).health is Health.OK


def test_nothing_without_a_store(tmp_path: Path) -> None:
    assert not list(check_fleet(parse_config("", origin="x"), Wall(0.0), tmp_path))
