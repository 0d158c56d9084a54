"""Checks of this host in a fleet whose hosts share a store, and of its unit.

The store itself is looked at by `fleet_store_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ds01d.cli.doctor.service_checks import run_tool
from ds01d.cli.doctor.source_checks import Check, fail, ok, warn
from ds01d.config import Config
from ds01d.model.primitives import Wall
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.published_status import read_published_status

DROP_IN: Final = "ds01d-fleet.conf"
_FIXES: Final = {
    "away": "systemctl status etcd on its members, and the firewall between",
    "fenced": "ds01ctl fleet rejoin on this host, if it is the right one",
    "restored": "wait until every host has reported, or ds01ctl thaw --fleet",
    "joining": "wait for the next pass",
}


def check_fleet(config: Config, now: Wall, booted: Path) -> Iterator[Check]:
    """Nothing where no store is configured. systemd has made `booted`, where it runs."""
    if not config.fleet.etcd:
        return
    published, _ = read_published_status(config, now)
    if published is not None and published.fleet is not None:
        yield describe_membership(published.fleet)
    # Without systemd there is no unit that could close the network.
    if booted.is_dir():
        yield from _check_unit()


def describe_membership(fleet: FleetStatus) -> Check:
    """How this host stands to the store, as ds01d has published it."""
    if fleet.state == "member":
        return ok("fleet", f"this host takes part, with {fleet.counts.hosts} hosts in all")
    reason = f": {fleet.reason}" if fleet.reason else ""
    return warn("fleet", f"this host is {fleet.state}{reason}", _FIXES.get(fleet.state, ""))


def _check_unit() -> Iterator[Check]:
    answer = run_tool(("systemctl", "show", "--property=PrivateNetwork", "ds01d.service"))
    # Where it cannot be asked, the members show whether the store is reached.
    if not isinstance(answer, str) and answer.stdout.strip() == "PrivateNetwork=yes":
        detail = "ds01d.service has no network, so it cannot reach fleet.etcd"
        yield fail("fleet", detail, f"install the drop-in {DROP_IN} (docs/fleet.md)")
