"""`ds01ctl doctor` and `journalctl -x` on a machine where the service runs."""

from __future__ import annotations

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import CONFIG, UNIT, Service
from tests.support.simulated_host import LIMITS

pytestmark = pytest.mark.machine
_DROP_IN = f"/etc/systemd/system/{UNIT}.d/local.conf"


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    """A booted machine where all is as an admin would have it, defaults included."""
    service = Service(machine)
    service.install(nvml.prod4())
    machine.put(CONFIG, "")
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    machine.path("/var/log/journal").mkdir(exist_ok=True)
    machine.put("/usr/lib/systemd/catalog/ds01d.catalog", ROOT / "systemd" / "ds01d.catalog")
    machine.boot()
    service.chown_books()
    machine.run("journalctl", "--update-catalog")
    machine.start_docker()
    service.systemctl("enable")
    service.start()
    return service


def told(service: Service) -> dict[str, list[str]]:
    """What the doctor warns of: check → words."""
    found: dict[str, list[str]] = {}
    for check in service.ctl("doctor")["checks"]:
        if check["health"] != "ok":
            found.setdefault(check["name"], []).append(check["told"])
    return found


def test_a_service_that_was_installed_as_it_should_be_is_well(service: Service) -> None:
    assert told(service).keys() == {"writers"}  # its books are a group's


def test_an_entry_is_explained(service: Service) -> None:
    words = ("journalctl", "-x", "-u", UNIT, "DS01_EVENT=daemon.ready")
    # It is logged after systemd was told, and journald writes it when it can.
    until(lambda: "Subject: ds01d is ready" in service.machine.run(*words).stdout)


def test_a_drop_in_that_opens_the_sandbox_is_told_and_that_it_still_holds(
    service: Service,
) -> None:
    service.machine.put(_DROP_IN, "[Service]\nProtectSystem=no\nWatchdogSec=0\n")
    service.machine.run("systemctl", "daemon-reload")
    service.systemctl("restart")  # the watchdog is that of the process which runs
    found = told(service)
    assert "ProtectSystem=no" in found["sandbox"][0]
    assert _DROP_IN in found["sandbox"][0]
    assert found["watchdog"]
    service.machine.path(_DROP_IN).unlink()
    assert "changed since systemd loaded them" in told(service)["unit"][0]
    service.machine.run("systemctl", "daemon-reload")
    assert told(service).keys() <= {"watchdog", "writers"}


def test_a_service_that_does_not_run_is_told(service: Service) -> None:
    service.systemctl("stop")
    found = told(service)
    assert "is inactive" in found["unit"][0]
    assert found["daemon"]
